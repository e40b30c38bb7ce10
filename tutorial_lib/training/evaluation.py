"""Scores on a folder: of a denoiser on pictures, of super-resolution with a guide on pairs."""

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib.data import add_noise, bicubic, luma, pairs, read_gray
from tutorial_lib.metrics import psnr, ssim
from tutorial_lib.super_resolution import crop

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".npy")
Denoiser = Callable[[Tensor, float | None], tuple[Tensor, float]]
SuperResolver = Callable[[Tensor, Tensor], Tensor]


def pictures(folder: str | Path) -> list[Path]:
    """The picture files of a folder, by name; not of folders inside.

    Raises:
        ValueError: there is none. NotADirectoryError: it is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})")
    return paths


def evaluate(denoise: Denoiser, folder: str | Path, *, sigma: float) -> dict[str, dict[str, float]]:
    """The scores of a denoiser on each picture of a folder, with noise added.

    The noise is white and Gaussian, seeded by the checksum CRC-32 of the file's name, neither
    clipped nor quantised. The denoiser is not told its level.

    Args:
        denoise: from a noisy gray image (h, w) and None to the denoised image and the level used.
        folder: of pictures of at least 11 x 11 pixels; coloured ones are made gray.
        sigma: standard deviation of the noise, in [0, 1].

    Returns:
        {file: {"psnr": ..., "ssim": ..., "psnr_noisy": ...}}; both PSNR in decibels.

    Raises:
        ValueError: no picture, or one that cannot be read, is not gray or coloured, or too small.
    """
    scores = {}
    for path in pictures(folder):
        x = read_gray(path)
        if min(x.shape) < 11:
            raise ValueError(f"{path}: expected at least 11 x 11 pixels, got {tuple(x.shape)}")
        y = add_noise(x, sigma, seed=zlib.crc32(path.name.encode()))
        with torch.no_grad():
            cleaned, _ = denoise(y, None)
        scores[path.name] = {
            "psnr": psnr(cleaned, x).item(),
            "ssim": ssim(cleaned, x).item(),
            "psnr_noisy": psnr(y, x).item(),
        }
    return scores


def evaluate_guided(
    super_resolve: SuperResolver, folder: str | Path, *, scale: int
) -> dict[str, dict[str, float]]:
    """The scores of super-resolution with a guide on each pair of a folder.

    Args:
        super_resolve: from the bicubic estimate of a target (h, w) and its gray guide (h, w) to
            the target.
        folder: of pairs (`tutorial_lib.data.pairs`); sizes are cropped to multiples of `scale`.
        scale: by which targets are reduced with MATLAB's bicubic `imresize`, unrounded.

    Returns:
        {name: {"rmse": ..., "rmse_bicubic": ..., "psnr": ...}}: root mean square errors of the
        result and of the bicubic estimate in units of 1/255, and the PSNR of the result.

    Raises:
        ValueError: no pair, one that does not fit together, one smaller than `scale`.
    """
    scores = {}
    for name, guide, target in pairs(folder):
        if min(target.shape) < scale:
            raise ValueError(f"{name}: {tuple(target.shape)} pixels cannot be reduced by {scale}")
        z, y = crop(target, scale=scale), crop(luma(guide), scale=scale)
        x = bicubic(z, scale=scale)
        with torch.no_grad():
            result = super_resolve(x, y)
        scores[name] = {"rmse": rmse(result, z), "rmse_bicubic": rmse(x, z)}
        scores[name]["psnr"] = psnr(result, z).item()
    return scores


def rmse(x: Float[Tensor, "h w"], z: Float[Tensor, "h w"]) -> float:
    """Root mean square difference, in units of 1/255.

    >>> round(rmse(torch.zeros(2, 2), torch.full((2, 2), 0.1)), 2)
    25.5
    """
    return 255 * (x - z).square().mean().sqrt().item()


def mean(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean of each score over the pictures.

    >>> mean({"a.png": {"psnr": 29.0}, "b.png": {"psnr": 30.0}})
    {'psnr': 29.5}
    """
    keys = next(iter(scores.values()))
    return {k: math.fsum(s[k] for s in scores.values()) / len(scores) for k in keys}


def by_tiles(
    f: Callable[[Tensor], Tensor],
    y: Float[Tensor, "*channels h w"],
    *,
    size: int = 1024,
    margin: int = 64,
) -> Float[Tensor, "*new_channels h w"]:
    """f(y) in bounded memory: tiles of size x size pixels, each computed with a margin around.

    Args:
        f: from an image to one of the same size, where far pixels hardly matter.
        y: of any size; one that a tile holds is computed at once.
        size, margin: pixels.

    >>> y = torch.rand(50, 70)
    >>> torch.equal(by_tiles(lambda t: 2 * t, y, size=32, margin=4), 2 * y)
    True
    """
    rows = []
    for top in range(0, y.shape[-2], size):
        row = []
        for left in range(0, y.shape[-1], size):
            a, b = max(0, top - margin), max(0, left - margin)
            tile = f(y[..., a : top + size + margin, b : left + size + margin])
            row.append(tile[..., top - a : top - a + size, left - b : left - b + size])
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)
