"""Image quality: peak signal-to-noise ratio, structural similarity, and two measures of spectra."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def psnr(
    x: Float[Tensor, "*batch h w"],
    reference: Float[Tensor, "*batch h w"],
    *,
    data_range: float = 1.0,
    ndim: int = 2,
) -> Float[Tensor, "..."]:
    """Peak signal-to-noise ratio in decibels, 10 log10(data_range^2 / mean (x - reference)^2).

    Args:
        x: (*batch, h, w), in the unit of `data_range`.
        reference: what x should be, of the same shape.
        data_range: largest minus smallest possible value: 1 for images in [0, 1].
        ndim: how many trailing axes one image has: 2, or 3 for a colour image, whose three
            channels then share one mean.

    Returns:
        One number per image, the shape of the leading axes; inf where the two are equal.

    Raises:
        ValueError: shapes or devices that differ, too few axes, empty or integer tensors, NaN, or a
            `data_range` that is not positive.

    Reference: Z. Wang and A. C. Bovik, Mean squared error: love it or leave it?, IEEE Signal
    Processing Magazine, 2009.

    >>> psnr(torch.full((8, 8), 0.6), torch.full((8, 8), 0.5)).round()
    tensor(20.)
    """
    _check(x, reference, data_range, ndim)
    error = (x - reference).square().flatten(-ndim).mean(-1)
    return 10 * torch.log10(data_range**2 / error)


def ssim(
    x: Float[Tensor, "*batch h w"],
    reference: Float[Tensor, "*batch h w"],
    *,
    data_range: float = 1.0,
    ndim: int = 2,
) -> Float[Tensor, "..."]:
    """Structural similarity: local luminance, contrast and structure compared under a window.

    The mean over all pixels whose window lies inside the image of

        (2 m_x m_r + c1) (2 v_xr + c2) / ((m_x^2 + m_r^2 + c1) (v_x + v_r + c2)),

    with local means m and (co)variances v under an 11 x 11 Gaussian window of standard deviation
    1.5, c1 = (0.01 data_range)^2 and c2 = (0.03 data_range)^2.

    Args:
        x: (*batch, h, w), at least 11 x 11 pixels, in the unit of `data_range`.
        reference: what x should be, of the same shape.
        data_range: largest minus smallest possible value: 1 for images in [0, 1].
        ndim: 2, or 3 for colour images: then the mean of the channels' values.

    Returns:
        One number per image, the shape of the leading axes: 1 where the two are equal.

    Raises:
        ValueError: as `psnr`, and images smaller than the window.

    Reference: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from
    error visibility to structural similarity, IEEE Trans. Image Processing, 2004.

    >>> ssim(torch.eye(16), torch.eye(16))
    tensor(1.)
    """
    _check(x, reference, data_range, ndim)
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"ssim needs at least 11 x 11 pixels, got shape {tuple(x.shape)}")
    # float64, because second moments minus squared means lose digits.
    a, b = (
        t.double().flatten(0, -3)[:, None] if t.ndim > 2 else t.double()[None, None]
        for t in (x, reference)
    )  # (n, 1, h, w)
    mean_a, mean_b, aa, bb, ab = map(_window_mean, (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * (ab - mean_a * mean_b) + c2) / (aa + bb - mean_a**2 - mean_b**2 + c2)
    value = (luminance * structure).mean((1, 2, 3)).reshape(x.shape[:-2]).to(x.dtype)
    return value if ndim == 2 else value.flatten(-(ndim - 2)).mean(-1)


def sam(
    x: Float[Tensor, "*batch bands h w"],
    reference: Float[Tensor, "*batch bands h w"],
    *,
    least: float = 0.01,
) -> Float[Tensor, "..."]:
    """Spectral angle: the mean over the pixels of arccos(<x, r> / (||x|| ||r||)), in radians.

    The angle of a pixel that is nearly black is noise, and in dark scenes such pixels decide the
    mean: they are left out. Where x has no spectrum at all, the angle counts as pi / 2.

    Args:
        x: (*batch, bands, h, w).
        reference: of the same shape.
        least: pixels count where the root mean square over the bands of the reference is above it;
            0 takes all that are not zero, as much published code does.

    Returns:
        One number per cube; NaN where no pixel counts.

    Raises:
        ValueError: as `psnr`; a negative `least`.

    Reference: F. A. Kruse et al., The spectral image processing system (SIPS), Remote Sensing of
    Environment, 1993.

    >>> x = torch.tensor([1.0, 1.0]).view(2, 1, 1)
    >>> sam(x, torch.tensor([1.0, 0.0]).view(2, 1, 1))  # 45 degrees
    tensor(0.7854)
    """
    _check(x, reference, 1.0, 3)
    if not 0 <= least < math.inf:
        raise ValueError(f"least = {least}: at least 0 is needed")
    a, b = x.double(), reference.double()
    norms = a.square().sum(-3).sqrt(), b.square().sum(-3).sqrt()
    cosine = (a * b).sum(-3) / (norms[0] * norms[1]).clamp(min=1e-300)
    angle = torch.arccos(cosine.clamp(-1, 1)).masked_fill(norms[0] == 0, math.pi / 2)
    counts = norms[1] > least * x.shape[-3] ** 0.5
    total = (angle * counts).sum((-2, -1)) / counts.sum((-2, -1))
    return total.to(x.dtype)


def ergas(
    x: Float[Tensor, "*batch bands h w"], reference: Float[Tensor, "*batch bands h w"]
) -> Float[Tensor, "..."]:
    """Relative dimensionless error: 100 sqrt(mean over the bands of MSE_b / mean_b(reference)^2).

    The factor h/l of the definition, a ratio of pixel sizes in fusion, is 1 here.

    Returns:
        One number per cube, 0 where the two are equal.

    Raises:
        ValueError: as `psnr`; a band of the reference whose mean is not positive.

    Reference: L. Wald, Data fusion: definitions and architectures, Presses des Mines, 2002.

    >>> r = torch.full((2, 8, 8), 0.5)
    >>> ergas(r + 0.05, r).round()
    tensor(10.)
    """
    _check(x, reference, 1.0, 3)
    means = reference.double().mean((-2, -1))
    if (means <= 0).any():
        raise ValueError(f"a band of mean {means.min():g}: ergas divides by it")
    errors = (x - reference).double().square().mean((-2, -1)) / means.square()
    return (100 * errors.mean(-1).sqrt()).to(x.dtype)


def separation_scores(
    x1: Float[Tensor, "h w"],
    x2: Float[Tensor, "h w"],
    truth1: Float[Tensor, "h w"],
    truth2: Float[Tensor, "h w"],
) -> dict[str, float]:
    """How near two parts of an X-ray are to the truth; their constants cannot be known.

    Returns:
        `mse`: mean of (x1 - truth1)^2, counted once, because x2 misses as much with the other sign.
        `mse_free`: the same without the mean of the error. `ssim1`, `ssim2`: `metrics.ssim` of the
        parts, after each has the mean of its truth.

    Raises:
        ValueError: the parts do not add up to what the true ones add up to, within 1e-4.
    """
    gap = float((x1 + x2 - truth1 - truth2).abs().max())
    if gap > 1e-4:
        raise ValueError(f"the parts and the true parts have different sums, by up to {gap:.2g}")
    e = (x1 - truth1).double()
    return {
        "mse": float(e.square().mean()),
        "mse_free": float((e - e.mean()).square().mean()),
        "ssim1": float(ssim(x1 - x1.mean() + truth1.mean(), truth1)),
        "ssim2": float(ssim(x2 - x2.mean() + truth2.mean(), truth2)),
    }


def _window_mean(x: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h2 w2"]:
    """Mean under the 11 x 11 Gaussian window, where it lies inside the image."""
    taps = torch.exp(-(torch.arange(-5, 6, dtype=x.dtype, device=x.device) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    return F.conv2d(F.conv2d(x, taps.view(1, 1, 11, 1)), taps.view(1, 1, 1, 11))


def _check(x: Tensor, reference: Tensor, data_range: float, ndim: int) -> None:
    if x.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(x.shape)} against {tuple(reference.shape)}")
    if x.device != reference.device:
        raise ValueError(f"devices differ: {x.device} against {reference.device}")
    if ndim < 2 or x.ndim < ndim or x.numel() == 0:
        raise ValueError(
            f"expected at least ndim = {ndim} axes (ndim >= 2) and no empty one, "
            f"got shape {tuple(x.shape)}"
        )
    for t in (x, reference):
        if not t.is_floating_point():
            raise ValueError(f"expected floating point images in [0, {data_range}], got {t.dtype}")
        if t.isnan().any():
            raise ValueError(f"NaN in an image of shape {tuple(t.shape)}")
    if not 0 < data_range < math.inf:
        raise ValueError(f"data_range must be positive and finite, got {data_range}")
