"""Classical filters with a guide: joint bilateral upsampling and the guided filter.

Both make the edges of a target follow those of a guide, a second picture of the same scene.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .prox import _check_values
from .super_resolution import downscale


def joint_bilateral_upsample(
    small: Float[Tensor, "h w"],
    guide: Float[Tensor, "new_h new_w"],
    *,
    scale: int,
    sigma_space: float,
    sigma_range: float,
    radius: int = 2,
) -> Float[Tensor, "new_h new_w"]:
    """Enlarge by `scale` with means of samples that are near, and alike in the guide.

    Pixel p of the result lies at u = (p + 1/2) / scale - 1/2 among the samples q of `small`, and is

        sum_q w_q small_q / sum_q w_q,
        w_q = exp(-|u - q|^2 / (2 sigma_space^2) - (guide_p - g_q)^2 / (2 sigma_range^2))

    over the (2 radius)^2 samples next to u, as far as they exist; g is the guide reduced by
    `downscale`.

    Args:
        small: the target at low resolution.
        guide: gray, exactly `scale` times as large.
        scale: 2 or more.
        sigma_space: in samples of `small`.
        sigma_range: in the unit of the guide.
        radius: samples to each side, along each axis.

    Raises:
        ValueError: NaN, integers, sizes that do not fit, widths that are not positive.

    Reference: J. Kopf, M. F. Cohen, D. Lischinski, M. Uyttendaele, Joint bilateral upsampling, ACM
    Trans. Graphics 26, 2007.

    >>> small, guide = torch.full((6, 7), 0.5), torch.rand(24, 28)
    >>> z = joint_bilateral_upsample(small, guide, scale=4, sigma_space=1.0, sigma_range=0.1)
    >>> torch.allclose(z, torch.full((24, 28), 0.5))
    True
    """
    _check_values(small, "small")
    _check_values(guide, "guide")
    h, w = small.shape
    if tuple(guide.shape) != (scale * h, scale * w):
        raise ValueError(
            f"guide of shape {tuple(guide.shape)}: {scale} times that of small, {(h, w)}, is needed"
        )
    if not (sigma_space > 0 and sigma_range > 0 and radius >= 1):
        raise ValueError(
            f"sigma_space = {sigma_space}, sigma_range = {sigma_range}, radius = {radius}: "
            "positive numbers are needed"
        )
    reduced = downscale(guide, scale=scale)
    rows, columns = ((torch.arange(scale * n).to(guide) + 0.5) / scale - 0.5 for n in (h, w))
    # The largest weight is taken out first: far from any alike sample all would vanish.
    logs, values = [], []
    for i in range(1 - radius, radius + 1):
        for j in range(1 - radius, radius + 1):
            q, r = (rows.floor() + i).long(), (columns.floor() + j).long()
            far = (rows - q).square()[:, None] + (columns - r).square()
            inside = ((q >= 0) & (q < h))[:, None] & (r >= 0) & (r < w)
            q, r = q.clamp(0, h - 1)[:, None], r.clamp(0, w - 1)
            log = -far / (2 * sigma_space**2)
            log = log - (guide - reduced[q, r]).square() / (2 * sigma_range**2)
            logs.append(log.masked_fill(~inside, -torch.inf))
            values.append(small[q, r])
    weights = torch.stack(logs).softmax(0)
    return (weights * torch.stack(values)).sum(0)


def guided_filter(
    x: Float[Tensor, "*batch h w"],
    guide: Float[Tensor, "*_batch _h _w"],
    *,
    radius: int,
    eps: float,
) -> Float[Tensor, "*batch h w"]:
    """The filter that is an affine function of the guide in each window.

    In the window of (2 radius + 1)^2 pixels around each pixel, as far as it lies in the image,

        (a, b) = argmin sum (a guide_i + b - x_i)^2 + eps a^2  over its pixels, per pixel,

    that is a = cov(guide, x) / (var(guide) + eps), b = mean(x) - a mean(guide). The result is
    mean(a) guide + mean(b), the means over the windows that hold the pixel.

    Args:
        x: what is filtered, such as the bicubic estimate of a depth map.
        guide: gray, of the same shape; x itself for an edge-preserving smoothing.
        radius: pixels, at least 1.
        eps: positive, in the squared unit of the guide: contrasts far below its root are smoothed.

    Raises:
        ValueError: NaN, integers, shapes that differ, numbers out of range.

    Reference: K. He, J. Sun, X. Tang, Guided image filtering, IEEE Trans. Pattern Analysis and
    Machine Intelligence 35, 2013.

    >>> guide = torch.rand(9, 9)
    >>> x = 2 * guide + 1  # affine already
    >>> torch.allclose(guided_filter(x, guide, radius=2, eps=1e-12), x, atol=1e-5)
    True
    """
    _check_values(x, "x")
    _check_values(guide, "guide")
    if x.shape != guide.shape or x.ndim < 2:
        raise ValueError(
            f"x {tuple(x.shape)} and guide {tuple(guide.shape)}: one shape (*batch, h, w) is needed"
        )
    if radius < 1 or not eps > 0:
        raise ValueError(f"radius = {radius}, eps = {eps}: radius >= 1 and eps > 0 are needed")

    def mean(u: Tensor) -> Tensor:
        window = {"kernel_size": 2 * radius + 1, "stride": 1, "padding": radius}
        flat = u.reshape(-1, 1, *u.shape[-2:])
        return avg_pool2d(flat, **window, count_include_pad=False).reshape(u.shape)

    y, z = guide.double(), x.double()  # variances are differences of large numbers
    mean_y, mean_z = mean(y), mean(z)
    a = (mean(y * z) - mean_y * mean_z) / (mean(y * y) - mean_y.square() + eps)
    b = mean_z - a * mean_y
    return (mean(a) * y + mean(b)).to(x)
