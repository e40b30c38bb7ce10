"""Cubes with stripes, dead lines and impulses: find what is damaged, restore from the rest."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .filterbank import filter_bank
from .low_rank import FLOOR, _check_cube, _one_pass, shrink_unit_noise, signal_subspace
from .thresholding import MAD

LEVELS = (8.0, 5.0, 3.0, 2.0, 1.5, 1.0, 1.0)  # of the denoiser, in units of the noise
SPRING = 0.5  # weight of the denoised eigenimages at level 1
SIDE = 7  # columns, or bands, that a running median sees


class Restored(NamedTuple):
    """A restored cube and what was held to be damaged.

    Args:
        cube: (bands, h, w), not clipped.
        sigma: Gaussian noise level of each band that was used.
        rank: dimension of the subspace.
        stuck: samples that were left out.
        offsets: what was subtracted from each column of each band, 0 where there is no stripe.
    """

    cube: Float[Tensor, "bands h w"]
    sigma: Float[Tensor, " bands"]
    rank: int
    stuck: Bool[Tensor, "bands h w"]
    offsets: Float[Tensor, "bands w"]


def stuck_samples(y: Float[Tensor, "bands h w"]) -> Bool[Tensor, "bands h w"]:
    """Samples whose exact value occurs far too often in their band: dead or saturated ones.

    Continuous noise hardly ever gives one value twice. A value is stuck if more than 8 samples and
    more than 0.1 % of the band have it, and ten times as many as have the median value.

    >>> y = torch.arange(200.0).reshape(1, 10, 20)
    >>> y[0, :, 3] = 0.0
    >>> stuck_samples(y)[0].sum(0).nonzero().flatten().tolist()[:3]
    [0, 3]
    """
    stuck = torch.zeros_like(y, dtype=torch.bool)
    for band, found in zip(y, stuck, strict=True):
        _, place, counts = band.unique(return_inverse=True, return_counts=True)
        least = max(8.0, 1e-3 * band.numel(), 10 * float(counts.median()))
        found |= (counts > least)[place]
    return stuck


def striped_columns(
    y: Float[Tensor, "bands h w"],
    keep: Bool[Tensor, "bands h w"],
    sigma: Float[Tensor, " bands"],
) -> Bool[Tensor, "bands w"]:
    """Columns of a band that stand off from their neighbours by one number.

    t is y minus the median of the 7 samples around in its row, d the median of t down a column,
    minus the same median over the 7 nearest bands: an edge of the scene is in all of them. A column
    is striped if d is above four standard errors (and 0.004), and explains more of t than what t
    varies beyond the noise.

    Args:
        y: (bands, h, w).
        keep: samples to look at.
        sigma: Gaussian noise level of each band.
    """
    found = [_stand_off(band, ok) for band, ok in zip(y, keep, strict=True)]
    d, spread = (torch.stack(parts) for parts in zip(*found, strict=True))
    usual = spread.median(1, keepdim=True).values
    d = d - _running_median(d.T).T
    near = _running_median(sigma.expand(d.shape[1], -1)).T / 2  # error of that median
    error = 1.45 * (sigma[:, None] ** 2 + near**2).sqrt() / keep.sum(1).clamp(min=1).sqrt()
    return (d.abs() > 4 * error + 0.004) & (d**2 > spread**2 - usual**2)


def masked_sigma(
    x: Float[Tensor, "bands h w"], keep: Bool[Tensor, "bands h w"]
) -> Float[Tensor, " bands"]:
    """`estimate_sigma` of the samples that are kept: each coefficient over its own noise gain."""
    high = filter_bank("db2").dec_hi.to(x)
    kernel = (high[:, None] * high)[None, None]
    d = F.conv2d((x * keep)[:, None], kernel)
    gain = F.conv2d(keep.to(x)[:, None], kernel.square())
    d = (d / gain.clamp(min=0.25).sqrt()).abs().masked_fill(gain < 0.3, math.nan).flatten(1)
    return (d.nanmedian(1).values / MAD).nan_to_num(1.0).clamp(min=FLOOR)


def restore_damaged(
    y: Float[Tensor, "bands h w"], *, levels: tuple[float, ...] = LEVELS
) -> Restored:
    """Restore a cube that has stripes, dead lines or impulses beside Gaussian noise.

    Damaged samples are left out: first the stuck ones and whole striped columns. What is missing
    is filled from its surroundings, then twice by `denoise_low_rank`'s pass, which gives the
    subspace U and, as median of y - x down a column, the offset of each stripe; subtracted, its
    column counts again. Then, with z = y / sigma, W the diagonal of the kept samples of a pixel
    and v the denoised eigenimages, for each level s

        c = argmin_c 1/2 ||z - U c||_W^2 + SPRING / (2 s^2) ||c - v||^2    at every pixel,
        v = denoise(c) at level s,

    which is plug and play. Two more passes of filling and denoising end it.

    Args:
        y: (bands, h, w), four bands or more, intensities in [0, 1].
        levels: s, falling to 1.

    Raises:
        ValueError: no cube, fewer than four bands, sides below 16, NaN, levels below 1.

    References: L. Zhuang, M. K. Ng, Hyperspectral mixed noise removal by l1-norm-based subspace
    representation, IEEE J. Sel. Topics Appl. Earth Obs. 13, 2020 (a subspace fitted around
    outliers); K. Zhang et al., Plug-and-play image restoration with deep denoiser prior, IEEE
    Trans. PAMI 44, 2022 (falling levels).

    >>> y = torch.rand(6, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> y[2, :, 5] = 0.0
    >>> restore_damaged(y).stuck.sum(1).nonzero().tolist()
    [[2, 5]]
    """
    _check_cube(y)
    if len(y) < 4 or min(y.shape[1:]) < 16:
        raise ValueError(f"y has shape {tuple(y.shape)}: 4 bands of 16 x 16 or more are needed")
    if not levels or not all(1 <= s < math.inf for s in levels):
        raise ValueError(f"levels = {levels}: one or more, at least 1")
    stuck = stuck_samples(y)
    sigma = masked_sigma(y - _local_mean(y, ~stuck), ~stuck)
    striped = striped_columns(y, ~stuck, sigma)

    keep = ~stuck & ~striped[:, None]
    x = _local_mean(y, keep)
    first = _one_pass(torch.where(keep, y, x), masked_sigma(y - x, keep), None, shrink_unit_noise)
    sigma = torch.minimum(first.sigma, masked_sigma(y - first.cube, keep))
    x, sigma, rank = _one_pass(torch.where(keep, y, first.cube), sigma, None, shrink_unit_noise)

    def destriped(x: Tensor) -> Tensor:
        """y without its stripes, as x sees them."""
        middle = (y - x).masked_fill(stuck, math.nan).nanmedian(1, keepdim=True).values
        return y - middle.nan_to_num(0.0) * striped[:, None]

    x = _fill_pixels(destriped, x, ~stuck, sigma, rank, levels)
    for _ in range(2):
        filled = torch.where(stuck, x, destriped(x))
        x, sigma, rank = _one_pass(filled, sigma, None, shrink_unit_noise)
    return Restored(x, sigma, rank, stuck, (y - destriped(x))[:, 0])


def _fill_pixels(
    destriped: Callable[[Tensor], Tensor],
    x: Tensor,
    keep: Tensor,
    sigma: Tensor,
    rank: int,
    levels: tuple[float, ...],
) -> Tensor:
    """The loop over the levels: c at every pixel from the samples that are kept, and v."""
    s3 = sigma[:, None, None]
    filled = torch.where(keep, destriped(x), x)
    U = signal_subspace((filled / s3).flatten(1), rank=rank)
    pairs = (U[:, :, None] * U[:, None, :]).flatten(1)
    gram = (keep.flatten(1).T.to(U) @ pairs).unflatten(1, (rank, rank))  # U^T W U, each pixel
    eye = torch.eye(rank, dtype=U.dtype, device=U.device)
    v = U.T @ (x / s3).flatten(1)
    for s in levels:
        rho = SPRING / s**2
        r = U.T @ (keep * destriped(x) / s3).flatten(1)
        factor = torch.linalg.cholesky(gram + rho * eye)
        c = torch.cholesky_solve((r + rho * v).T[..., None], factor)[..., 0].T
        v = shrink_unit_noise(c.view(rank, *x.shape[1:]), s).flatten(1)
        x = s3 * (U @ v).view_as(x)
    return x


def _local_mean(y: Tensor, keep: Tensor, *, size: int = 5) -> Tensor:
    """Mean of what is kept in a window round each sample."""
    pad = (size // 2,) * 4
    parts = F.pad(torch.stack([y * keep, keep.to(y)]), pad, mode="reflect")
    total, count = F.avg_pool2d(parts, size, stride=1)
    return total / count.clamp(min=0.5 / size**2)


def _stand_off(band: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """How far the columns of one band are from their neighbours, and how that varies down them."""
    seen = band.masked_fill(~keep, math.nan)
    t = seen - _running_median(seen)
    d = t.nanmedian(0).values
    spread = (t - d).abs().nanmedian(0).values / MAD
    return d.nan_to_num(0.0), spread.nan_to_num(0.0)


def _running_median(x: Tensor) -> Tensor:
    """Over the last axis, NaN left out; a slope goes on beyond the ends."""
    half = SIDE // 2
    mirrored = F.pad(x[:, None], (half, half), mode="reflect")[:, 0]
    mirrored[:, :half] = 2 * x[:, :1] - mirrored[:, :half]
    mirrored[:, -half:] = 2 * x[:, -1:] - mirrored[:, -half:]
    return mirrored.unfold(-1, SIDE, 1).nanmedian(-1).values
