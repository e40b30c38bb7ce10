"""Cubes whose spectra are few: denoising in the subspace that they span.

A cube y (bands, h, w) is a matrix with one row a band and one column a pixel. The clean one has low
rank, because neighbouring bands are nearly multiples of each other; noise has not.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .prox import _check_values
from .thresholding import denoise_wavelet, estimate_sigma

Denoiser = Callable[[Tensor], Tensor]
FLOOR = 1e-3  # least noise level of a band that is believed
MARGIN = 1.01  # how far above the edge of noise a singular value counts


class LowRank(NamedTuple):
    """A denoised cube.

    Args:
        cube: (bands, h, w), not clipped.
        sigma: the noise level of each band that was used, (bands).
        rank: dimension of the subspace.
    """

    cube: Float[Tensor, "bands h w"]
    sigma: Float[Tensor, " bands"]
    rank: int


def shrink_unit_noise(x: Float[Tensor, "k h w"], sigma: float = 1.0) -> Float[Tensor, "k h w"]:
    """Undecimated wavelets sym4 with the thresholds of BayesShrink, for noise of level sigma."""
    level = x.new_full((len(x),), sigma)
    return denoise_wavelet(x, sigma=level, wavelet="sym4", transform="undecimated")


def signal_subspace(
    z: Float[Tensor, "bands n"], *, rank: int | None = None
) -> Float[Tensor, "bands k"]:
    """The left singular vectors of z that stand out of white noise of level 1, largest first.

    Of noise alone, (bands, n), the largest singular value is close to sqrt(n) + sqrt(bands), the
    edge of Marchenko and Pastur: a direction counts if its squared value is 1 % above the square
    of that.

    Args:
        z: one row a band, divided by its noise level.
        rank: how many; None: those that count, at least one.

    Raises:
        ValueError: NaN, integers; a rank below 1 or above the number of bands.

    Reference: V. A. Marchenko, L. A. Pastur, Distribution of eigenvalues for some sets of random
    matrices, Math. USSR-Sbornik 1, 1967.

    >>> z = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    >>> z[0] += 3  # one band with a signal
    >>> signal_subspace(z).shape
    torch.Size([5, 1])
    """
    _check_values(z, "z")
    bands, n = z.shape
    if rank is not None and not 1 <= rank <= bands:
        raise ValueError(f"rank = {rank}: between 1 and the {bands} bands")
    exact = z.double()
    squares, vectors = torch.linalg.eigh(exact @ exact.T)
    if rank is None:
        edge = MARGIN * (math.sqrt(n) + math.sqrt(bands)) ** 2
        rank = max(1, int((squares > edge).sum()))
    return vectors.flip(1)[:, :rank].to(z.dtype)


def denoise_low_rank(
    y: Float[Tensor, "bands h w"],
    *,
    sigma: Float[Tensor, " bands"] | None = None,
    rank: int | None = None,
    denoise: Denoiser = shrink_unit_noise,
) -> LowRank:
    """Denoise a cube whose bands have Gaussian noise of different levels.

    With z = y / sigma band by band (noise of level 1 everywhere) and U its `signal_subspace`, the k
    eigenimages U^T z carry noise of level 1 too. They are denoised as images, and

        x = sigma U denoise(U^T z).

    Where sigma is not given this is done twice: with the level that `estimate_sigma` finds in each
    band of y, and with what it finds in y - x. Levels below 1e-3 count as 1e-3.

    Args:
        y: (bands, h, w), intensities usually in [0, 1].
        sigma: noise level of each band, in the unit of y.
        rank: k; None: what stands out of the noise.
        denoise: (k, h, w) -> (k, h, w), takes white noise of level 1 away. Wavelets by default;
            with BM3D in its place this is FastHyDe.

    Raises:
        ValueError: no cube, NaN, integers; levels that are negative or not one a band; a rank
            below 1 or above the number of bands.

    References: B. Rasti, M. O. Ulfarsson, P. Ghamisi, Automatic hyperspectral image restoration
    using sparse and low-rank modeling, IEEE Geosci. Remote Sens. Lett. 14, 2017 (HyRes);
    L. Zhuang, J. M. Bioucas-Dias, Fast hyperspectral image denoising and inpainting based on
    low-rank and sparse representations, IEEE J. Sel. Topics Appl. Earth Obs. 11, 2018 (FastHyDe).

    >>> x = torch.linspace(0, 1, 8)[:, None, None].expand(8, 32, 32)
    >>> y = x + 0.1 * torch.randn(8, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> found = denoise_low_rank(y)
    >>> bool((found.cube - x).std() < 0.02)
    True
    """
    _check_cube(y)
    if sigma is not None:
        if sigma.shape != y.shape[:1] or not bool((sigma >= 0).all()):
            raise ValueError(f"sigma = {sigma.tolist()}: {len(y)} levels, at least 0, are needed")
        return _one_pass(y, sigma, rank, denoise)
    first = _one_pass(y, estimate_sigma(y), rank, denoise)
    return _one_pass(y, estimate_sigma(y - first.cube), rank, denoise)


def _one_pass(y: Tensor, sigma: Tensor, rank: int | None, denoise: Denoiser) -> LowRank:
    sigma = sigma.clamp(min=FLOOR)
    z = y / sigma[:, None, None]
    U = signal_subspace(z.flatten(1), rank=rank)
    images = denoise(torch.einsum("bk,bhw->khw", U, z))
    x = sigma[:, None, None] * torch.einsum("bk,khw->bhw", U, images)
    return LowRank(x, sigma, U.shape[1])


def _check_cube(y: Tensor) -> None:
    if y.ndim != 3 or y.numel() == 0:
        raise ValueError(f"y has shape {tuple(y.shape)}: expected a cube (bands, h, w)")
    _check_values(y, "y")
