"""Hyperspectral cubes, (bands, h, w): the scenes of CAVE, cubes with real noise, readers' files."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .cube_files import from_samples, read_samples
from .download import data_dir
from .files import read_image
from .images import photograph

BANDS = 31  # of CAVE, 400 to 700 nm in steps of 10
# Cubes without a known truth: file, variable, (h, w) where pixels are stored as one column each.
REAL = {
    "hydice": ("HYDICE_data.mat", "data", None),
    "jasper_ridge": ("jasperRidge2_R198.mat", "Y", (100, 100)),
    "hyperion_paris": ("paris_data_hs_ms.mat", "HSim", None),
}


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
    return _stack([folder / f"{name}_ms_{k:02}.png" for k in range(1, BANDS + 1)], folder)


def real_cube(name: str) -> Float[Tensor, "bands h w"]:
    """A cube with real noise and no truth, its largest value 1.

    Args:
        name: "hydice" (162 bands, 100 x 80), "jasper_ridge" (AVIRIS, 198 bands, 100 x 100) or
            "hyperion_paris" (128 bands, 72 x 72).

    Raises:
        FileNotFoundError: its file is not in the folder hsi_real of the data.
        ValueError: another name, a damaged file.
    """
    if name not in REAL:
        raise ValueError(f"unknown cube {name!r}: known are {', '.join(REAL)}")
    file, variable, shape = REAL[name]
    cube = read_cube(data_dir() / "hsi_real" / file, name=variable, shape=shape)
    return cube / cube.max()


def read_cube(
    path: str | Path,
    *,
    name: str | None = None,
    shape: tuple[int, int] | None = None,
    bands_axis: int | None = None,
    peak: float | None = None,
) -> Float[Tensor, "bands h w"]:
    """Read a cube from a folder of images or from one file.

    Args:
        path: a folder that holds one gray image for each band, taken in the order of their names
            (PNG or TIFF; of colour images the first channel), as CAVE's scenes; or a file that
            `read_image` reads: `.mat` of any version (h, w, bands), `.npy` (bands, h, w), a TIFF
            with one page for each band.
        name: which variable of a `.mat` file; not needed where it holds one cube.
        shape: (h, w) of a file that holds a matrix (bands, h w), pixels column by column as
            MATLAB unrolls them.
        bands_axis: which axis of the stored array is the spectrum, if not as above.
        peak: the stored value that becomes 1. None: the largest number of the integer type for
            images; for arrays whose values leave [-1, 2], their largest value; else 1.

    Returns:
        Float32, (bands, h, w), at least two bands.

    Raises:
        FileNotFoundError: there is no such file, or the folder holds no image.
        ValueError: damaged files, bands of different sizes, NaN, shapes that are not a cube's,
            axes that seem to be in another order, a peak that is not positive.
    """
    path = Path(path)
    if peak is not None and not 0 < peak < float("inf"):
        raise ValueError(f"peak = {peak}: a positive number is needed")
    samples = read_samples(path, name=name, shape=shape, bands_axis=bands_axis)
    if peak is None and path.is_dir() and samples.dtype.kind in "iu":
        peak = float(np.iinfo(samples.dtype).max)
    if peak is None:
        outside = samples.min() < -1 or samples.max() > 2
        peak = float(samples.max()) if outside else 1.0
    if peak <= 0:
        raise ValueError(f"{path}: its largest value is {peak}: say with peak= what becomes 1")
    return from_samples(samples, peak=peak)


def colour_cube(name: str, *, size: int = 256) -> Float[Tensor, "31 size size"]:
    """A bundled colour photograph as 31 bands: a stand-in where no cube is on disk.

    The spectrum of a pixel is blue, green and red times bells of 60 nm around 450, 550 and 620 nm.
    Real spectra have more to tell: these cubes have rank 3.

    Args:
        name: as in `photograph`.
        size: pixels a side.

    Returns:
        In [0, 1], the largest value 1.
    """
    blue_green_red = photograph(name, size=size, gray=False).flip(0)
    nm = torch.linspace(400, 700, BANDS)[:, None]
    bells = torch.exp(-(((nm - torch.tensor([450.0, 550.0, 620.0])) / 60) ** 2))
    cube = torch.einsum("bc,chw->bhw", bells, blue_green_red)
    return cube / cube.max()


def false_colour(
    cube: Float[Tensor, "bands h w"], *, bands: tuple[int, int, int] | None = None
) -> Float[Tensor, "3 h w"]:
    """Three bands as red, green and blue, so bright that 99.5 % of the samples are below 1.

    Args:
        cube: (bands, h, w), wavelengths ascending.
        bands: for red, green, blue; None: those at 5/6, 1/2 and 1/6 of the spectrum (for CAVE 650,
            550 and 450 nm).

    Returns:
        (3, h, w), clipped to [0, 1].

    Raises:
        ValueError: a band that is not there.

    >>> false_colour(torch.arange(31.0)[:, None, None].expand(31, 2, 2))[:, 0, 0]
    tensor([1.0000, 0.6000, 0.2000])
    """
    n = len(cube)
    bands = bands or tuple(round(share * (n - 1)) for share in (5 / 6, 1 / 2, 1 / 6))
    if not all(-n <= b < n for b in bands):
        raise ValueError(f"bands = {bands}: the cube has {n}")
    picture = cube[list(bands)]
    return (picture / picture.flatten().quantile(0.995).clamp(min=1e-12)).clamp(0, 1)


def _stack(files: list[Path], source: Path) -> Float[Tensor, "bands h w"]:
    bands = [read_image(file) for file in files]
    bands = [band if band.ndim == 2 else band[0] for band in bands]
    shapes = {tuple(band.shape) for band in bands}
    if len(shapes) > 1:
        raise ValueError(f"{source}: bands of different sizes, {sorted(shapes)}")
    return torch.stack(bands)
