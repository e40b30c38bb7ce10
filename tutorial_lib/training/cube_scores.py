"""Scores of a method for cubes on a folder of scenes, and how its equilibria converged."""

import time
from pathlib import Path
from typing import Any

import tifffile
from torch import Tensor

from tutorial_lib.data import CASES, add_cube_noise, read_cube
from tutorial_lib.data.cube_files import IMAGES, OUTPUTS
from tutorial_lib.metrics import psnr, sam, ssim

from . import recipes
from .cube_tiles import SMALLEST, Tile, report
from .cubes import cube_denoiser, for_cubes
from .evaluation import mean

ALIASES = {"corr": "correlated"}


def evaluate_cubes(
    name: str, folder: str | Path, *, noise: str, sigma: float | None = None, seed: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """The scores of a method on each scene of a folder, with noise added.

    Each scene is divided by its largest value, and gets the noise of `add_cube_noise`, which is
    not clipped; nor is the result.

    Args:
        name: of a method of `cube_denoiser`.
        folder: of `scenes`.
        noise: one of `CASES`, or "corr".
        sigma: in 1/255, as in `add_cube_noise`: 95 if None; not for "corr".
        seed: of the noise, the same for all scenes.

    Returns:
        What `evaluate --json` prints: under "images" for each scene PSNR in dB and SSIM (means
        over the bands), SAM in radians, and the same of the noisy scene, under "metric" their
        means, under "equilibrium", if there was one, for each scene the number of its tiles, of
        those that converged, the mean of their evaluations, the largest residual, and the tiles
        that did not. And lines that tell the last.

    Raises:
        ValueError: no scene, or one that cannot be read, is nowhere positive, or has too few
            bands or pixels.
    """
    case = ALIASES.get(noise, noise)
    if case not in CASES:
        raise ValueError(f"--noise {noise}: allowed are {', '.join([*CASES, *ALIASES])}")
    if name not in ("wavelet", "lowrank"):
        module = recipes.find(name)
        if not for_cubes(name) and not hasattr(module, "denoise"):
            raise ValueError(f"{name} is no denoiser: --noise is for denoisers, and adds to cubes")
    own = case == "correlated"
    if own and sigma is not None:
        raise ValueError(f"--sigma {sigma:g}: the noise {noise} has levels of its own")
    sigma = None if own else 95.0 if sigma is None else sigma
    if not own and not 0 <= sigma <= 255:
        raise ValueError(f"--sigma {sigma:g}: expected 0 to 255")
    found = scenes(folder)
    denoise = cube_denoiser(name)
    begin = time.perf_counter()
    images, equilibrium, lines = {}, {}, []
    for scene, path in found.items():
        x = read_cube(path)
        if not x.max() > 0:
            raise ValueError(f"{path}: no value is above 0")
        if min(x.shape[1:]) < SMALLEST:
            raise ValueError(
                f"{path}: {tuple(x.shape)}: at least {SMALLEST} x {SMALLEST} pixels are needed"
            )
        x = x / x.max()
        level = None if own else sigma / 255
        try:
            y = add_cube_noise(x, case, sigma=level, seed=seed).cube
            z, tiles = denoise(y, scene)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        images[scene] = _scores(z, x) | {f"{k}_noisy": v for k, v in _scores(y, x).items()}
        if tiles:
            equilibrium[scene] = _summary(tiles)
            first, *others = report(tiles)
            lines += [f"{scene}: {first}", *others]
    seconds = time.perf_counter() - begin
    told = {"name": name, "metric": mean(images), "images": images, "seconds": seconds}
    told |= {"noise": noise, "sigma": sigma, "seed": seed}
    return told | ({"equilibrium": equilibrium} if equilibrium else {}), lines


def scenes(folder: str | Path) -> dict[str, Path]:
    """The cubes of a folder by name: CAVE's layout, folders of bands, files; or one such folder.

    Raises:
        NotADirectoryError: it is no folder. ValueError: there is no cube.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    inner = folder / "complete_ms_data"
    folder = inner if inner.is_dir() else folder
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            bands = path / path.name if (path / path.name).is_dir() else path
            if _count_bands(bands) > 1:
                found[path.name.removesuffix("_ms")] = bands
        elif _is_cube(path):
            found[path.name] = path
    if not found and _count_bands(folder) > 1:
        found[folder.resolve().name.removesuffix("_ms")] = folder
    if not found:
        raise ValueError(
            f"{folder}: holds no cube: neither {', '.join(OUTPUTS)} nor a folder with an image "
            "for each band"
        )
    return found


def _scores(z: Tensor, x: Tensor) -> dict[str, float]:
    scores = {"psnr": psnr(z, x).mean(), "ssim": ssim(z, x).mean(), "sam": sam(z, x)}
    return {k: v.item() for k, v in scores.items()}


def _summary(tiles: list[Tile]) -> dict[str, Any]:
    return {
        "tiles": len(tiles),
        "converged": sum(t.converged for t in tiles),
        "evaluations": sum(t.evaluations for t in tiles) / len(tiles),
        "residual": max(t.residual for t in tiles),
        "others": [t._asdict() for t in tiles if not t.converged],
    }


def _count_bands(folder: Path) -> int:
    return sum(p.suffix.lower() in IMAGES and not _is_cube(p) for p in folder.iterdir())


def _is_cube(path: Path) -> bool:
    if path.suffix.lower() not in (".tif", ".tiff"):
        return path.suffix.lower() in OUTPUTS
    try:
        with tifffile.TiffFile(path) as tiff:
            return len(tiff.pages) != 1
    except tifffile.TiffFileError:
        return True  # reading it says what is wrong
