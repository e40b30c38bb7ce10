"""Cubes in the reader's own files: read with the spectrum first and in the file's unit, written."""

from pathlib import Path

import numpy as np
import scipy.io
import tifffile
import torch
from jaxtyping import Float
from torch import Tensor

from .files import check_place, complete, read_array

OUTPUTS = (".mat", ".npy", ".tif", ".tiff")
IMAGES = (".png", ".tif", ".tiff")  # one band each, in a folder
USUAL = 31  # bands: of CAVE, of ICVL, and of the networks


def read_samples(
    path: str | Path,
    *,
    name: str | None = None,
    shape: tuple[int, int] | None = None,
    bands_axis: int | None = None,
) -> np.ndarray:
    """Read a cube as it is stored: no scaling, the file's own type.

    Args:
        path: a folder that holds one gray image for each band, taken in the order of their names
            (of colour images the first channel), or a file that `read_array` reads.
        name: which variable of a `.mat` file; not needed where it holds one cube.
        shape: (h, w) of a file that holds a matrix (bands, h w), pixels column by column as
            MATLAB unrolls them.
        bands_axis: which axis of the stored array is the spectrum, 0, 1 or 2. None: the last of a
            `.mat` file; of other files the first, the page of a TIFF.

    Returns:
        (bands, h, w), at least two bands.

    Raises:
        FileNotFoundError: there is no such file, or the folder holds no image.
        ValueError: damaged files, bands of different sizes, NaN (with the numbers of the bands),
            shapes that are not a cube's; where `bands_axis` is None, axes that seem to be in
            another order.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if bands_axis not in (None, 0, 1, 2):
        raise ValueError(f"{path}: bands_axis = {bands_axis}: allowed are 0, 1 and 2")
    array = read_array(path, name=name, stored=True)
    if shape is not None:
        if array.ndim != 2 or array.shape[1] != shape[0] * shape[1]:
            raise ValueError(
                f"{path}: shape {array.shape}, (bands, {shape[0]} x {shape[1]}) wanted"
            )
        array = array.reshape(len(array), shape[1], shape[0]).transpose(0, 2, 1)
        bands_axis = 0
    usual = 2 if path.suffix.lower() == ".mat" else 0
    axis = usual if bands_axis is None else bands_axis
    if array.ndim != 3 or array.shape[axis] < 2 or not array.size or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: {array.dtype} of shape {array.shape}: expected numbers (bands, h, w), two "
            "bands or more; a matrix (bands, h w) needs shape=(h, w)"
        )
    if bands_axis is None and (other := _likelier(array.shape, axis)) is not None:
        raise ValueError(
            f"{path}: of its axes {array.shape}, number {axis} would be the spectrum, but number "
            f"{other}, of length {array.shape[other]}, looks like it: say --bands-axis {other} "
            f"(in Python bands_axis={other}), or {axis} if it is right as it is"
        )
    array = np.moveaxis(array, axis, 0)
    bad = [b for b, band in enumerate(array) if not np.isfinite(band).all()]
    if bad:
        listed = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise ValueError(
            f"{path}: holds NaN or infinite values in {len(bad)} of {len(array)} bands: number "
            f"{listed}, where the first is 0; mend them or leave them out"
        )
    return array


def write_cube(path: str | Path, cube: Float[Tensor, "bands h w"], *, dtype: str) -> None:
    """Write a cube, complete or not at all.

    Args:
        path: ends in .npy (bands, h, w), .mat (h, w, bands; its variable is `cube`), or .tif or
            .tiff (one page for each band).
        cube: in the unit to be written.
        dtype: of numpy; integers are rounded and clipped to the range of their type.

    Raises:
        ValueError: another suffix. OSError: the folder is missing or cannot be written.
    """
    path = Path(path)
    check_cube_output(path)
    samples = cube.detach().cpu().numpy()
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        samples = samples.astype(np.float64).round().clip(limits.min, limits.max)
    samples = np.ascontiguousarray(samples.astype(dtype))
    with complete(path) as part, part.open("wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, samples)
        elif path.suffix.lower() == ".mat":
            scipy.io.savemat(file, {"cube": samples.transpose(1, 2, 0)})
        else:
            tifffile.imwrite(file, samples, photometric="minisblack")


def check_cube_output(path: str | Path) -> None:
    """Refuse, before any work, a file that `write_cube` could not write."""
    path = Path(path)
    if path.suffix.lower() not in OUTPUTS:
        raise ValueError(
            f"{path}: a cube cannot be written as {path.suffix!r}: allowed are {', '.join(OUTPUTS)}"
        )
    check_place(path)


def _likelier(shape: tuple[int, ...], axis: int) -> int | None:
    """A shorter axis that is more likely the spectrum: of 31, or images are less oblong without it.

    >>> _likelier((512, 400, 31), 0), _likelier((162, 100, 80), 0)  # the second: a HYDICE crop
    (2, None)
    """
    shortest = min(range(3), key=lambda k: (shape[k], k != axis))
    if shortest == axis or shape[axis] == USUAL:
        return None
    oblong = [max(sides) / min(sides) for k in (axis, shortest) for sides in [_without(shape, k)]]
    return shortest if shape[shortest] == USUAL or oblong[0] > 1.2 * oblong[1] else None


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _read_folder(path: Path) -> np.ndarray:
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
    if len(files) < 2:
        raise FileNotFoundError(f"{path}: holds {len(files)} images, a cube has two or more")
    bands = [read_array(file) for file in files]
    bands = [band if band.ndim == 2 else band[0] for band in bands]
    kinds = sorted({(band.shape, band.dtype.name) for band in bands})
    if len(kinds) > 1:
        raise ValueError(f"{path}: bands of different sizes or types, {kinds}")
    return np.stack(bands)


def from_samples(samples: np.ndarray, *, peak: float) -> Float[Tensor, "bands h w"]:
    """Samples divided by the value that becomes 1, in float32."""
    return torch.from_numpy(np.divide(samples, peak, dtype=np.float64).astype(np.float32))
