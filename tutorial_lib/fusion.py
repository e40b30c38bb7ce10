"""Fusion of two photographs of one scene, each sharp where the other is not.

Pairs with a known truth, the classical rule in the wavelet domain, and a measure that asks how much
of the edges of both photographs has come through.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from .wavelets import Details, Wavelet, iswt2, swt2

# Xydeas and Petrovic: Gamma, kappa, sigma of the two logistic curves.
STRENGTH = (0.9994, -15.0, 0.5)
ORIENTATION = (0.9879, -22.0, 0.8)


class FocusPair(NamedTuple):
    """Two photographs, and where the first is blurred; there the second is sharp."""

    a: Float[Tensor, "*batch h w"]
    b: Float[Tensor, "*batch h w"]
    mask: Bool[Tensor, "*batch h w"]


# Pairs with a known truth ------------------------------------------------------------------------


def focus_pair(
    x: Float[Tensor, "*batch h w"],
    corner: Int[Tensor, "*batch 2"],
    *,
    window: int = 140,
    sigma: float = 3.0,
) -> FocusPair:
    """A multi-focus pair of which x is the truth: G x inside a square window, or outside it.

        a = m G x + (1 - m) x,    b = (1 - m) G x + m x,

    with a Gaussian blur G and m = 1 in the window. So a + b = x + G x, whatever the window.

    Args:
        x: sharp images (*batch, h, w).
        corner: the window's first row and first column, one for each image; what lies beyond the
            borders is cut off.
        window: pixels a side.
        sigma: standard deviation of the blur, in pixels; its kernel ends at three of them, and the
            image is mirrored at its borders.

    Raises:
        ValueError: NaN, integers, images smaller than half the kernel, a window below 1, a sigma
            that is not positive and finite, corners that do not go with the images.

    Reference: X. Deng, P. L. Dragotti, Deep convolutional neural network for multi-modal image
    restoration and fusion, IEEE TPAMI 43, 2021.

    >>> a, b, mask = focus_pair(torch.rand(64, 64), torch.tensor([10, 20]), window=30)
    >>> mask.sum()
    tensor(900)
    """
    _check(x)
    if window < 1:
        raise ValueError(f"window {window} must be at least 1")
    if corner.shape != (*x.shape[:-2], 2) or corner.is_floating_point():
        raise ValueError(
            f"corners of shape {tuple(corner.shape)}, {corner.dtype}: whole numbers of shape "
            f"{(*x.shape[:-2], 2)} are needed for images of shape {tuple(x.shape)}"
        )
    blurred = gaussian_blur(x, sigma)
    inside = [
        (i >= first[..., None]) & (i < first[..., None] + window)
        for i, first in (
            (torch.arange(n, device=x.device), c)
            for n, c in zip(x.shape[-2:], corner.to(x.device).unbind(-1), strict=True)
        )
    ]
    mask = inside[0][..., :, None] & inside[1][..., None, :]
    return FocusPair(torch.where(mask, blurred, x), torch.where(mask, x, blurred), mask)


def random_corner(
    shape: tuple[int, int], *, window: int = 140, generator: torch.Generator
) -> Int[Tensor, " 2"]:
    """The first row and column of a random window.

    Along an axis where there is room for it the window lies inside. Along one that is shorter, as
    in a training patch, it covers at least an eighth, so that its border often crosses the patch.

    Args:
        shape: (h, w) of the image.
        window: pixels a side, at least 1.
        generator: of the random numbers.

    Raises:
        ValueError: a window or an image below 1 pixel.

    >>> random_corner((320, 480), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2])
    """
    if window < 1 or min(shape) < 1:
        raise ValueError(f"window {window} and image {tuple(shape)}: at least 1 pixel is needed")
    corner = []
    for n in shape:
        low, high = (0, n - window) if window <= n else (-(-n // 8) - window, n - -(-n // 8))
        corner.append(torch.randint(low, high + 1, (), generator=generator))
    return torch.stack(corner)


def gaussian_blur(x: Float[Tensor, "*batch h w"], sigma: float) -> Float[Tensor, "*batch h w"]:
    """Convolution with a Gaussian that ends at three sigma, the image mirrored at its borders.

    Raises:
        ValueError: a sigma that is not positive and finite, an image smaller than half the kernel.

    >>> gaussian_blur(torch.ones(16, 16), 3.0).std() < 1e-6
    tensor(True)
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma {sigma} must be positive and finite")
    reach = int(3 * sigma + 0.5)
    if min(x.shape[-2:]) <= reach:
        raise ValueError(
            f"images of shape {tuple(x.shape)}: a blur of sigma {sigma} needs more than {reach} "
            "pixels a side"
        )
    i = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.exp(-(i**2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(x)
    y = pad(x.reshape(-1, 1, *x.shape[-2:]), [reach] * 4, mode="reflect")
    return conv2d(conv2d(y, taps[:, None][None, None]), taps[None, None, None]).reshape(x.shape)


# The classical rule ------------------------------------------------------------------------------


def fuse_wavelet(
    a: Float[Tensor, "*batch h w"],
    b: Float[Tensor, "*batch h w"],
    *,
    wavelet: Wavelet = "db2",
    level: int = 4,
) -> Float[Tensor, "*batch h w"]:
    """Wavelet-maximum fusion: each detail from the image that has more of it nearby.

    In each band of the undecimated transform the larger of the two |coefficients|, the largest of
    3 x 3 in both, decides; a decision that most of its 3 x 3 neighbours do not share is turned
    (consistency check). The approximations are averaged.

    Args:
        a, b: images of one shape.
        wavelet, level: of `swt2`.

    Raises:
        ValueError: shapes that differ, NaN, integers, an unknown wavelet.

    Reference: H. Li, B. S. Manjunath, S. K. Mitra, Multisensor image fusion using the wavelet
    transform, Graphical Models and Image Processing 57, 1995.

    >>> x = torch.rand(32, 32)
    >>> torch.allclose(fuse_wavelet(x, x), x, atol=1e-5)
    True
    """
    _check(a, b)
    (low_a, *details_a), (low_b, *details_b) = (swt2(x, wavelet, level=level) for x in (a, b))
    details = [
        Details(*(_larger(s, t) for s, t in zip(of_a, of_b, strict=True)))
        for of_a, of_b in zip(details_a, details_b, strict=True)
    ]
    return iswt2([(low_a + low_b) / 2, *details], wavelet)


def _larger(s: Float[Tensor, "*batch h w"], t: Float[Tensor, "*batch h w"]) -> Tensor:
    """s or t, entry by entry: local maxima are compared, then the majority of 3 x 3 decides."""

    def nearby(v: Tensor) -> Tensor:
        return max_pool2d(v.abs().reshape(-1, 1, *v.shape[-2:]), 3, stride=1, padding=1)

    sign = (nearby(s) - nearby(t)).sign()  # 0 where none is larger
    votes = avg_pool2d(sign, 3, stride=1, padding=1).reshape(s.shape)
    return torch.where(votes > 0, s, torch.where(votes < 0, t, (s + t) / 2))


# How much of the edges has come through ----------------------------------------------------------


def edge_transfer(
    fused: Float[Tensor, "*batch h w"],
    a: Float[Tensor, "*batch h w"],
    b: Float[Tensor, "*batch h w"],
) -> Float[Tensor, "*batch"]:
    """Q^AB/F of Xydeas and Petrovic: how much of the edges of a and b the fused image has.

    With gradients (Sobel) of strength g and angle alpha in a, b and the fused image f,

        Q^AB/F = sum (Q^AF g_a + Q^BF g_b) / sum (g_a + g_b),    Q^AF = L_g(G) L_alpha(A),
        G = min(g_a, g_f) / max(g_a, g_f),    A = 1 - |alpha_a - alpha_f| / (pi / 2),

    summed over the pixels; L(t) = Gamma / (1 + exp(kappa (t - sigma))) with (Gamma, kappa, sigma) =
    (.9994, -15, .5) for the strength and (.9879, -22, .8) for the angle. Angles are those of the
    edge: modulo pi, so their difference is at most pi/2.

    Args:
        fused, a, b: of one shape, at least 3 x 3 pixels; the outermost pixels are left out.

    Returns:
        A number for each image, (*batch): .9748 if all three are equal, 0 if none of the edges are
        there. NaN if neither a nor b has an edge.

    Raises:
        ValueError: shapes that differ, too few pixels, NaN, integers.

    Reference: C. S. Xydeas, V. Petrovic, Objective image fusion performance measure, Electronics
    Letters 36, 2000.

    >>> x = torch.rand(32, 32)
    >>> edge_transfer(x, x, x).round(decimals=4)
    tensor(0.9748)
    """
    _check(fused, a, b)
    if min(a.shape[-2:]) < 3:
        raise ValueError(f"images of shape {tuple(a.shape)}: at least 3 x 3 pixels are needed")
    edges = [_gradient(x) for x in (fused, a, b)]
    g_a, g_b = (s.norm(dim=-3) for s in edges[1:])
    kept = _transfer(edges[0], edges[1]) * g_a + _transfer(edges[0], edges[2]) * g_b
    return kept.sum((-2, -1)) / (g_a + g_b).sum((-2, -1))


def _transfer(f: Float[Tensor, "*b 2 h w"], s: Float[Tensor, "*b 2 h w"]) -> Tensor:
    """Q^SF: the share of each gradient of s that is in f."""
    g_f, g_s = f.norm(dim=-3), s.norm(dim=-3)
    high = torch.maximum(g_f, g_s)
    strength = torch.minimum(g_f, g_s) / torch.where(high > 0, high, 1.0)
    cross = f[..., 0, :, :] * s[..., 1, :, :] - f[..., 1, :, :] * s[..., 0, :, :]
    angle = torch.atan2(cross.abs(), (f * s).sum(-3).abs())  # 0 to pi/2: a difference modulo pi
    return _logistic(strength, *STRENGTH) * _logistic(1 - angle / (torch.pi / 2), *ORIENTATION)


def _logistic(t: Tensor, gamma: float, kappa: float, sigma: float) -> Tensor:
    return gamma * torch.sigmoid(-kappa * (t - sigma))


def _gradient(x: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b 2 h-2 w-2"]:
    """Sobel's differences, downwards and to the right."""
    down = x.new_tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]])
    sobel = torch.stack([down, down.T])[:, None]
    g = conv2d(x.reshape(-1, 1, *x.shape[-2:]), sobel)
    return g.reshape(*x.shape[:-2], *g.shape[1:])


def _check(*images: Tensor) -> None:
    if len({x.shape for x in images}) > 1:
        raise ValueError(f"shapes differ: {', '.join(str(tuple(x.shape)) for x in images)}")
    for x in images:
        if x.ndim < 2 or not x.is_floating_point():
            raise ValueError(
                f"expected floating point images (*batch, h, w), got {tuple(x.shape)}, {x.dtype}"
            )
        if x.isnan().any():
            raise ValueError(f"NaN in an image of shape {tuple(x.shape)}")
