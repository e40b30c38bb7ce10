"""Hyperspectral cubes: the scenes of CAVE."""

import torch
from jaxtyping import Float
from torch import Tensor

from .download import data_dir
from .files import read_image

BANDS = 31


def cave_scenes() -> list[str]:
    """The names of the CAVE scenes on disk, such as "balloons", sorted.

    Raises:
        FileNotFoundError: there is none.
    """
    root = data_dir() / "CAVE" / "complete_ms_data"
    names = sorted(p.name.removesuffix("_ms") for p in root.glob("*_ms") if p.is_dir())
    if not names:
        raise FileNotFoundError(f"{root}: holds no scene of CAVE, a folder NAME_ms")
    return names


def cave(name: str) -> Float[Tensor, "31 h w"]:
    """One scene of CAVE: 31 bands of 10 nm, 400 to 700 nm.

    Args:
        name: such as "balloons".

    Returns:
        Float32 in [0, 1], (31, h, w). Of a band that is stored in colour, the first channel.

    Raises:
        FileNotFoundError: no such scene, or a band of it is missing.
        ValueError: a file is damaged, or bands differ in size.

    Reference: F. Yasuma, T. Mitsunaga, D. Iso, S. K. Nayar, Generalized assorted pixel camera,
    IEEE Trans. Image Processing, 2010.
    """
    folder = data_dir() / "CAVE" / "complete_ms_data" / f"{name}_ms"
    inner = folder / f"{name}_ms"
    folder = inner if inner.is_dir() else folder
    bands = [read_image(folder / f"{name}_ms_{k:02}.png") for k in range(1, BANDS + 1)]
    bands = [band if band.ndim == 2 else band[0] for band in bands]
    shapes = {tuple(band.shape) for band in bands}
    if len(shapes) > 1:
        raise ValueError(f"{folder}: bands of different sizes, {sorted(shapes)}")
    return torch.stack(bands)
