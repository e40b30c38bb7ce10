"""Methods for hyperspectral cubes, and their use on the reader's own file."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_type_hints

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from tutorial_lib.damaged_cubes import restore_damaged
from tutorial_lib.data.cube_files import check_cube_output, from_samples, read_samples, write_cube
from tutorial_lib.thresholding import denoise_wavelet, estimate_sigma

from . import recipes
from .cube_tiles import DenoisedCube, denoise_cube, report

BLOCK, LEVEL = 4, 0.9995  # of `white`
CubeDenoiser = Callable[[Tensor, str], DenoisedCube]


def for_cubes(name: str) -> bool:
    """Whether a method takes cubes only: "lowrank", or a recipe whose network has `restore`."""
    if name in ("wavelet", "lowrank"):
        return name == "lowrank"
    trained = getattr(recipes.find(name), "trained", None)
    while isinstance(trained, partial):
        trained = trained.func
    return hasattr(get_type_hints(trained).get("return") if trained else None, "restore")


def cube_denoiser(method: str, *, sigma: float | None = None) -> CubeDenoiser:
    """A method as a function of a cube with its white near 1, and of a title for a progress bar.

    Args:
        method: "wavelet" or a denoiser of gray images: band by band; "lowrank", which is
            `restore_damaged`; a network for whitened cubes: `denoise_cube`, its tiles on a GPU if
            there is one.
        sigma: of the noise, in the unit of the cube; None: estimated. Not for cube methods.
    """
    whole = for_cubes(method)
    if whole and sigma is not None:
        raise ValueError(f"--sigma {255 * sigma:g}: {method} finds the noise of each band itself")
    if method == "lowrank":
        return lambda y, title: DenoisedCube(restore_damaged(y).cube, [])
    if whole:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = recipes.find(method).trained().to(device)
        batch = 64 if device == "cuda" else 1
        return lambda y, title: denoise_cube(network, y, batch_size=batch, progress=title)
    one = wavelet if method == "wavelet" else recipes.find(method).denoise

    def by_bands(y: Float[Tensor, "bands h w"], title: str) -> DenoisedCube:
        bands = tqdm(y, desc=title, unit="band")
        return DenoisedCube(torch.stack([one(band, sigma)[0] for band in bands]), [])

    return by_bands


def wavelet(
    y: Float[Tensor, "h w"], sigma: float | None = None
) -> tuple[Float[Tensor, "h w"], float]:
    """Undecimated wavelets, BayesShrink: the denoised image and the level used, as recipes do."""
    level = estimate_sigma(y) if sigma is None else torch.tensor(sigma, dtype=y.dtype)
    settings = {"wavelet": "sym4", "threshold": "bayes", "transform": "undecimated"}
    # Mirrored borders: the transform is circular, and a photograph is not.
    mirrored = torch.from_numpy(np.pad(y.numpy(), 32, mode="symmetric"))
    return denoise_wavelet(mirrored, sigma=level, **settings)[32:-32, 32:-32], level.item()


def white(samples: np.ndarray) -> float:
    """A robust largest value of a noisy cube: what becomes 1 for the networks.

    The medians of all blocks of 4 x 4 pixels of a band, and of all these medians the quantile
    0.9995: single pixels, dead lines and most impulses do not count. On noisy scenes of CAVE
    whose largest value was 1 it was 0.38 to 1.13.

    Args:
        samples: (bands, h, w), in any unit.

    >>> cube = np.full((31, 32, 32), 3000)
    >>> cube[:, ::5, ::5] = 65535
    >>> white(cube)
    3000.0
    """
    n, h, w = samples.shape
    i, j = min(BLOCK, h), min(BLOCK, w)
    medians = []
    for band in samples:  # one after the other: an eighth of the memory
        blocks = band[: h // i * i, : w // j * j].reshape(h // i, i, w // j, j)
        medians.append(np.median(blocks, axis=(1, 3)))
    return float(np.quantile(np.stack(medians), LEVEL))


def denoise_cube_file(
    source: Path,
    target: Path,
    *,
    method: str,
    sigma: float | None = None,
    key: str | None = None,
    bands_axis: int | None = None,
    peak: float | None = None,
) -> list[str]:
    """Denoise a cube in a file, and say in lines what was done.

    The cube is divided by `peak`, or by its `white`, denoised, and multiplied again: what is
    written has the unit of what was read. It is float32; from a TIFF of integers to a TIFF it is
    rounded to their type.

    Args:
        source, target: of `read_samples` and `write_cube`.
        method, sigma: of `cube_denoiser`; sigma in units of the value that becomes 1.
        key: which variable of a `.mat` file.
        bands_axis: which axis of the stored array is the spectrum.
        peak: the stored value that becomes 1.

    Raises:
        ValueError: what `read_samples` or the method refuses; a cube that is nowhere positive,
            or far below zero somewhere.
    """
    check_cube_output(target)
    if peak is not None and not 0 < peak < math.inf:
        raise ValueError(f"--peak {peak:g}: expected a positive number")
    samples = read_samples(source, name=key, bands_axis=bands_axis)
    n, h, w = samples.shape
    top = white(samples) if peak is None else peak
    if top <= 0:
        raise ValueError(f"{source}: hardly a value is above 0: say with --peak what becomes 1")
    lowest = np.unravel_index(samples.argmin(), samples.shape)
    if samples[lowest] < -5 * top:
        raise ValueError(
            f"{source}: {samples[lowest]:g} at band {lowest[0]}, row {lowest[1]}, column "
            f"{lowest[2]}, while its white is {top:g}: replace such marks of missing values first"
        )
    denoise = cube_denoiser(method, sigma=sigma)
    kind, integers = samples.dtype.name, samples.dtype.kind in "iu"
    y = from_samples(samples, peak=top)
    del samples
    begin = time.perf_counter()
    try:
        cube, tiles = denoise(y, method)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    seconds = time.perf_counter() - begin
    tiffs = all(p.suffix.lower() in (".tif", ".tiff") for p in (source, target))
    dtype = kind if integers and tiffs else "float32"
    write_cube(target, cube.mul_(top), dtype=dtype)
    line = (
        f"{target}: {n} bands of {w} x {h}, {method}, {kind} with {top:.6g} as 1 "
        f"({'estimated' if peak is None else 'given'}), written as {dtype} in the same unit, "
        f"{seconds:.1f} s"
    )
    return [line, *(report(tiles) if tiles else [])]
