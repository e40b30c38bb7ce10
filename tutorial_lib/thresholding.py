"""Shrinkage of wavelet coefficients: the rules, the choice of threshold, the denoisers.

Model: y = x + n with white Gaussian noise n of standard deviation sigma. An orthonormal transform
leaves n white at the same sigma in every band, while a photograph gathers in few coefficients.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .filterbank import MODES
from .wavelets import (
    Details,
    Mode,
    Wavelet,
    _check_level,
    dwt,
    iswt2,
    swt2,
    wavedec2,
    waverec2,
)

Rule = Literal["visu", "sure", "bayes"]
Shrink = Literal["soft", "hard", "firm"]
Transform = Literal["decimated", "undecimated", "cycle-spun"]
MAD = 0.6744897501960817  # median of |n| for n standard normal
GROUP = 2**21  # numbers denoised at a time on a CPU: 8 MB of float32

# Shrinkage functions -----------------------------------------------------------------------------


def soft(x: Float[Tensor, "*n"], threshold: float | Tensor) -> Float[Tensor, "*n"]:
    """Soft threshold S_t(x) = sign(x) max(|x| - t, 0) = argmin_u 1/2 (u - x)^2 + t |u|.

    Args:
        x: any shape.
        threshold: t >= 0, a number or a tensor that broadcasts against x.

    Raises:
        ValueError: integers; a negative or NaN threshold. A NaN in x stays one: to look for it
            would double the cost of an inner loop. The same holds for `hard` and `firm`.

    Reference: D. L. Donoho, De-noising by soft-thresholding, IEEE Trans. Inf. Theory, 1995.

    >>> soft(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2.,  0.,  1.])
    """
    threshold = _threshold(threshold, x)
    if threshold.shape == x.shape:
        return x - x.clamp(-threshold, threshold)
    return x - torch.maximum(torch.minimum(x, threshold), -threshold)  # broadcasts twice as fast


def hard(x: Float[Tensor, "*n"], threshold: float | Tensor) -> Float[Tensor, "*n"]:
    """Hard threshold: x where |x| > t, else 0: an argmin of 1/2 (u - x)^2 + t^2/2 [u != 0].

    Args:
        x, threshold: as in `soft`.

    Raises:
        ValueError: as `soft`.

    >>> hard(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-3.,  0.,  2.])
    """
    threshold = _threshold(threshold, x)
    return x * (x.abs() > threshold)


def firm(x: Float[Tensor, "*n"], low: float | Tensor, high: float | Tensor) -> Float[Tensor, "*n"]:
    """Firm threshold: 0 below `low`, x above `high`, linear and continuous in between.

    In between it is high (|x| - low) / (high - low) sign(x). It is the argmin over u of
    1/2 (u - x)^2 + p(u) with the minimax concave penalty p(u) = low (|u| - u^2 / (2 high)) up to
    |u| = high, constant beyond.

    Args:
        x: any shape.
        low, high: 0 <= low < high. As high -> infinity it becomes `soft`, as high -> low `hard`.

    Raises:
        ValueError: as `soft`; `low` not below `high`.

    Reference: H.-Y. Gao and A. G. Bruce, WaveShrink with firm shrinkage, Stat. Sinica, 1997.

    >>> firm(torch.tensor([0.5, 1.5, 3.0]), 1.0, 2.0)
    tensor([0., 1., 3.])
    """
    low, high = _threshold(low, x), _threshold(high, x)
    if not bool((low < high).all()):
        raise ValueError(f"firm threshold: low = {low} must be below high = {high}")
    return torch.where(x.abs() > high, x, soft(x, low) / (1 - low / high))


# Noise level and thresholds ----------------------------------------------------------------------


def estimate_sigma(
    x: Float[Tensor, "*batch h w"], *, wavelet: Wavelet = "db2"
) -> Float[Tensor, "*batch"]:
    """Noise level by the median absolute deviation of the finest diagonal band.

    sigma = median(|d|) / 0.6745: the median does not see the few large coefficients of edges.
    Coefficients that are exactly zero (saturated or synthetic areas) are left out.

    Args:
        x: images (*batch, h, w).
        wavelet: the one whose diagonal band is used.

    Returns:
        sigma in the unit of x, one a batch element; 0 for a constant image.

    Raises:
        ValueError: unknown wavelet, too few axes, an empty axis, an integer tensor, NaN.

    Reference: D. L. Donoho and I. M. Johnstone, Biometrika 81, 1994.

    >>> noise = 0.1 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    >>> bool((estimate_sigma(noise) - 0.1).abs() < 0.002)
    True
    """
    return _mad(dwt(x, wavelet, ndim=2)[..., 3, :, :])


def visu_threshold(n: int, sigma: float | Tensor) -> Tensor:
    """Universal threshold sigma sqrt(2 ln n): with high probability above every noise coefficient.

    Args:
        n: number of coefficients, at least 1.
        sigma: noise level, number or tensor.

    Raises:
        ValueError: n below 1; a negative or NaN sigma.

    Reference: D. L. Donoho and I. M. Johnstone, Biometrika 81, 1994.

    >>> visu_threshold(65536, 0.1)
    tensor(0.4710)
    """
    if n < 1:
        raise ValueError(f"n = {n}: the universal threshold needs at least one coefficient")
    return _noise_level(sigma) * math.sqrt(2 * math.log(n))


def sure_threshold(
    band: Float[Tensor, "*batch n"], sigma: float | Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """SureShrink: the soft threshold of least unbiased risk estimate, one a batch element.

    SURE(t) = n sigma^2 + sum_i min(|d_i|, t)^2 - 2 sigma^2 #{i : |d_i| <= t} has the expectation
    E ||S_t(d) - d_clean||^2; between two neighbouring |d_i| it only rises, so its minimum is at
    t = 0 or at some |d_i|. As in the original, a band too sparse for the estimate to be reliable,
    mean(d^2) / sigma^2 - 1 <= log2(n)^(3/2) / sqrt(n), gets the universal threshold, and no
    threshold exceeds it.

    Args:
        band: coefficients (*batch, n).
        sigma: noise level.

    Raises:
        ValueError: an empty band, integers, NaN; a negative sigma.

    Reference: D. L. Donoho and I. M. Johnstone, J. Amer. Stat. Assoc. 90, 1995.

    >>> sure_threshold(torch.zeros(4), 0.1) == visu_threshold(4, 0.1)
    tensor(True)
    """
    _energy(band)
    if band.dtype in (torch.float16, torch.bfloat16):  # sums of many squares need more digits
        return sure_threshold(band.float(), sigma).to(band.dtype)
    n = band.shape[-1]
    sigma = _noise_level(sigma, band.dtype, band.device)
    sigma = sigma.clamp(min=torch.finfo(band.dtype).tiny)
    universal = visu_threshold(n, sigma)
    d = (band / sigma.unsqueeze(-1)).abs().sort(dim=-1).values
    squares = d.square()
    kept = torch.arange(n - 1, -1, -1, dtype=band.dtype, device=band.device)
    risk = n + squares.cumsum(-1) + kept * squares - 2 * (n - kept)  # at t = d_i
    least, best = risk.min(-1, keepdim=True)
    t = torch.where(least < n, d.gather(-1, best), 0).squeeze(-1)  # SURE(0) = n
    sparse = squares.mean(-1) - 1 <= math.log2(max(n, 1)) ** 1.5 / math.sqrt(n)
    return torch.where(sparse, universal, torch.minimum(t * sigma, universal))


def bayes_threshold(
    band: Float[Tensor, "*batch n"], sigma: float | Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """BayesShrink: t = sigma^2 / sigma_x with sigma_x^2 = mean(d^2) - sigma^2, one a batch element.

    The formula is a fit: it stays within a few per cent of the best soft threshold's Bayes risk
    when the clean coefficients are generalised Gaussian. A band with mean(d^2) <= sigma^2 is all
    noise; sigma_x is then bounded below by sigma times the square root of machine epsilon, so
    that everything goes.

    Args:
        band: coefficients (*batch, n).
        sigma: noise level.

    Raises:
        ValueError: as `sure_threshold`.

    Reference: S. G. Chang, B. Yu, M. Vetterli, IEEE Trans. Image Process. 9, 2000.

    >>> bayes_threshold(torch.tensor([3.0, -3.0, 3.0, -3.0]), 1.0)
    tensor(0.3536)
    """
    energy = _energy(band)
    dtype = energy.dtype
    variance = _noise_level(sigma, dtype, band.device).square()
    signal = energy - variance
    least = (torch.finfo(dtype).eps * variance).clamp(min=torch.finfo(dtype).tiny)
    return (variance / torch.maximum(signal, least).sqrt()).to(band.dtype)


# Denoising ---------------------------------------------------------------------------------------


def denoise_wavelet(
    x: Float[Tensor, "*batch h w"],
    *,
    sigma: float | Tensor | None = None,
    wavelet: Wavelet = "sym8",
    level: int = 4,
    threshold: Rule | float | int = "bayes",
    shrink: Shrink = "soft",
    transform: Transform = "decimated",
    mode: Mode = "symmetric",
) -> Float[Tensor, "*batch h w"]:
    """Denoise images by shrinking their wavelet coefficients; the approximation is kept.

    Args:
        x: noisy images (*batch, h, w) of any size, intensities usually in [0, 1].
        sigma: noise level in the unit of x, a number or (*batch); `None` estimates it for each
            image from its finest diagonal band (see `estimate_sigma`).
        wavelet: name of a discrete wavelet of PyWavelets.
        level: number of levels, at least 1.
        threshold: "visu", "sure" or "bayes" (one threshold a band), or a number t: t * sigma.
        shrink: "soft", "hard", or "firm" with the second threshold at twice the first.
        transform: "decimated"; "undecimated" (circular); or "cycle-spun", the mean over all
            2**level x 2**level circular shifts, which for a fixed threshold is the same
            estimate, computed 4**level times: for checking. It needs sides divisible by 2**level.
        mode: border of the decimated transform; the other two are circular.

    Returns:
        the denoised images (*batch, h, w), not clipped.

    Raises:
        ValueError: unknown names, negative sigma or threshold, level below 1, NaN, integers.

    Reference: R. R. Coifman and D. L. Donoho, Translation-invariant de-noising, 1995.

    >>> x = torch.ones(2, 33, 20) * torch.tensor([0.2, 0.8]).view(2, 1, 1)
    >>> torch.allclose(denoise_wavelet(x, sigma=0.1), x)
    True
    """
    if transform not in ("decimated", "undecimated", "cycle-spun"):
        raise ValueError(
            f"unknown transform {transform!r}: allowed are decimated, undecimated, cycle-spun"
        )
    _check_level(level)
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: allowed are {', '.join(MODES)}")
    if sigma is not None:
        sigma = _noise_level(sigma, x.dtype, x.device)
        if sigma.ndim and sigma.shape != x.shape[:-2]:
            raise ValueError(
                f"sigma of shape {tuple(sigma.shape)}: one number, or one for each image of the "
                f"batch {tuple(x.shape[:-2])}, is needed"
            )
    if x.device.type == "cpu" and x.numel() > max(GROUP, x.shape[-2:].numel()):
        options = {"threshold": threshold, "shrink": shrink, "transform": transform, "mode": mode}
        denoise = partial(denoise_wavelet, wavelet=wavelet, level=level, **options)
        return _in_groups(denoise, x, sigma)
    if transform == "decimated":
        coeffs = wavedec2(x, wavelet, mode=mode, level=level)
        if sigma is None:
            sigma = _mad(coeffs[-1].diagonal)
    elif sigma is None:
        sigma = estimate_sigma(x, wavelet=wavelet)

    def shrunk(coeffs: list) -> list:
        pixels = x.shape[-1] * x.shape[-2]
        return _shrink_details(coeffs, sigma, pixels, threshold, shrink)

    if transform == "decimated":
        return waverec2(shrunk(coeffs), wavelet, mode=mode, shape=x.shape[-2:])
    if transform == "undecimated":
        return iswt2(shrunk(swt2(x, wavelet, level=level)), wavelet)
    if any(size % 2**level for size in x.shape[-2:]):
        raise ValueError(
            f"cycle spinning over {level} levels needs sides divisible by {2**level}, "
            f"got {tuple(x.shape[-2:])}: use transform='undecimated'"
        )
    total = torch.zeros_like(x)
    for shift in itertools.product(range(2**level), repeat=2):
        back = [-s for s in shift]
        coeffs = wavedec2(x.roll(shift, (-2, -1)), wavelet, mode="periodization", level=level)
        total += waverec2(shrunk(coeffs), wavelet, mode="periodization").roll(back, (-2, -1))
    return total / 4**level


def _in_groups(denoise: Callable[..., Tensor], x: Tensor, sigma: Tensor | None) -> Tensor:
    """A long CPU batch, a few images at a time, so that they stay in the cache."""
    count = max(1, GROUP // x.shape[-2:].numel())
    images, cleaned = x.flatten(0, -3), torch.empty_like(x).flatten(0, -3)
    levels = None if sigma is None else sigma.expand(x.shape[:-2]).flatten()
    for i in range(0, len(images), count):
        group = slice(i, i + count)
        cleaned[group] = denoise(images[group], sigma=None if sigma is None else levels[group])
    return cleaned.view(x.shape)


def _shrink_details(
    coeffs: list, sigma: Tensor, n: int, threshold: Rule | float, shrink: Shrink
) -> list:
    """Apply one threshold to each detail band; the approximation passes."""
    return [
        coeffs[0],
        *(
            Details(*(_shrink_band(band, sigma, n, threshold, shrink) for band in level))
            for level in coeffs[1:]
        ),
    ]


def _shrink_band(
    band: Tensor, sigma: Tensor, n: int, threshold: Rule | float, shrink: Shrink
) -> Tensor:
    flat = band.flatten(-2)
    if threshold == "bayes":
        t = bayes_threshold(flat, sigma)
    elif threshold == "sure":
        t = sure_threshold(flat, sigma)
    elif threshold == "visu":
        t = visu_threshold(n, sigma)
    elif isinstance(threshold, int | float) and threshold >= 0:
        t = threshold * sigma
    else:
        raise ValueError(
            f"threshold = {threshold!r}: allowed are 'visu', 'sure', 'bayes' or a number >= 0"
        )
    t = t[..., None, None]
    if shrink == "soft":
        return soft(band, t)
    if shrink == "hard":
        return hard(band, t)
    if shrink == "firm":
        return firm(band, t, 2 * t + torch.finfo(band.dtype).tiny)
    raise ValueError(f"unknown shrink {shrink!r}: allowed are soft, hard, firm")


def _mad(band: Tensor) -> Tensor:
    """Median of |d| over the coefficients d != 0 of each (h, w), over 0.6745."""
    d = band.detach().abs().flatten(-2)
    d = d.to(torch.promote_types(d.dtype, torch.float32))
    if d.device.type != "cpu":
        d = d.masked_fill(d == 0, torch.nan)
        middle = (d.nanmedian(-1).values - (-d).nanmedian(-1).values) / 2  # of the lower and upper
        return middle.nan_to_num(0.0).to(band.dtype) / MAD
    medians = []  # NumPy's vectorised selection is several times faster than torch's median
    for row in d.reshape(-1, d.shape[-1]).numpy():
        zeros = row.size - np.count_nonzero(row)
        upper = min((row.size + zeros) // 2, row.size - 1)
        ordered = np.partition(row, upper)
        even = (row.size - zeros) % 2 == 0 and upper > zeros
        medians.append((ordered[upper] + ordered[:upper].max()) / 2 if even else ordered[upper])
    return band.new_tensor(np.array(medians)).view(d.shape[:-1]) / MAD


def _noise_level(
    sigma: float | Tensor, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    sigma = torch.as_tensor(sigma, dtype=dtype, device=device)
    if not bool((sigma >= 0).all()):
        raise ValueError(f"sigma = {sigma.tolist()}: a noise level is at least 0")
    return sigma


def _energy(band: Tensor) -> Tensor:
    """Mean square over the last axis, in float32 at least; NaN would be seen in it."""
    if not band.is_floating_point() or band.shape[-1] == 0:
        raise ValueError(
            f"band of shape {tuple(band.shape)} and {band.dtype}: a floating-point tensor with at "
            "least one coefficient is needed"
        )
    energy = band.to(torch.promote_types(band.dtype, torch.float32)).square().mean(-1)
    if energy.isnan().any():
        raise ValueError(f"band of shape {tuple(band.shape)} contains NaN")
    return energy


def _threshold(threshold: float | Tensor, x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"x of dtype {x.dtype}: a floating-point tensor is needed")
    threshold = torch.as_tensor(threshold, dtype=x.dtype, device=x.device)
    if not bool((threshold >= 0).all()):
        raise ValueError(f"threshold = {threshold.tolist()}: a threshold is at least 0")
    return threshold
