"""Predicting an X-ray from the visible picture: bands of its gray, and three regressions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .exclusion import haar_details


def visible_bands(picture: Float[Tensor, "c h w"], *, knots: int = 16) -> Float[Tensor, "_s h w"]:
    """Bands that a linear link can use: the picture's brightness, cut into soft steps.

    For each channel: hat functions with one knot at each of `knots` quantiles, so that a linear
    combination is any curve that is straight between the knots. Then their means are subtracted and
    they are made orthogonal with mean square 1; what depends on the others is dropped.

    Args:
        picture: its luma as (1, h, w) for curves of the gray, or colours (3, h, w) for a sum of
            curves of each.
        knots: at least 2.

    >>> visible_bands(torch.rand(1, 20, 20), knots=8).shape
    torch.Size([7, 20, 20])
    """
    if knots < 2:
        raise ValueError(f"knots = {knots}: at least 2 are needed")
    columns = []
    for channel in picture.double():
        at = torch.quantile(channel.flatten(), torch.linspace(0, 1, knots, dtype=torch.float64))
        at = at.unique()
        if len(at) < 2:
            continue
        i = torch.searchsorted(at, channel.contiguous(), right=True).clamp(1, len(at) - 1)
        t = (channel - at[i - 1]) / (at[i] - at[i - 1])
        hats = channel.new_zeros(len(at), *channel.shape)
        hats.scatter_(0, i[None] - 1, (1 - t)[None]).scatter_(0, i[None], t[None])
        columns.append(hats)
    if not columns:
        raise ValueError("the picture is constant: it says nothing about the X-ray")
    return _whiten(torch.cat(columns)).to(picture)


def standard_bands(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """The channels themselves, each with mean 0 and mean square 1: the link of the paper."""
    centred = picture - picture.mean((1, 2), keepdim=True)
    return centred / centred.square().mean((1, 2), keepdim=True).sqrt()


def _whiten(b: Tensor) -> Tensor:
    a = (b - b.mean((1, 2), keepdim=True)).flatten(1)
    values, vectors = torch.linalg.eigh(a @ a.T / a.shape[1])
    keep = values > 1e-6 * values.max()
    return ((vectors[:, keep] / values[keep].sqrt()).T @ a).reshape(-1, *b.shape[1:])


def curve_regression(
    x: Float[Tensor, "h w"], bands: Float[Tensor, "s h w"]
) -> Float[Tensor, "h w"]:
    """The part of x, without its mean, that `visible_bands` predict: sum_s <x, r_s> r_s / N."""
    return torch.einsum("s,shw->hw", torch.einsum("shw,hw->s", bands, x) / x.numel(), bands)


def linear_regression(
    x: Float[Tensor, "h w"], picture: Float[Tensor, "c h w"], *, size: int = 5
) -> Float[Tensor, "h w"]:
    """The part of x, without its mean, that a size x size filter of each channel predicts."""
    r = size // 2
    columns = F.unfold(F.pad(picture[None], (r, r, r, r), mode="reflect"), size)[0].double()
    columns = columns - columns.mean(1, keepdim=True)
    gram = columns @ columns.T
    gram.diagonal().add_(1e-9 * gram.diagonal().mean())
    target = (x - x.mean()).flatten().double()
    return (torch.linalg.solve(gram, columns @ target) @ columns).to(x).reshape(x.shape)


def edge_regression(
    x: Float[Tensor, "h w"], bands: Float[Tensor, "s h w"], *, steps: int = 30
) -> Float[Tensor, "h w"]:
    """sum_s beta_s r_s, beta = argmin ||W (x - sum_s beta_s r_s)||_1, W = `haar_details`.

    The hidden picture is what is left, and should have few edges. Solved by reweighted least
    squares, the absolute value rounded below 1e-4 of the mean edge of x.

    Reference: I. Daubechies, R. DeVore, M. Fornasier, C. S. Gunturk, Iteratively reweighted least
    squares minimization for sparse recovery, Comm. Pure Appl. Math. 63, 2010.
    """
    A = haar_details(bands.double()).flatten(1)
    b = haar_details(x.double()).flatten()
    floor = 1e-4 * b.abs().mean()
    weight = torch.ones_like(b)
    for _ in range(steps):
        weighted = A * weight
        gram = weighted @ A.T
        gram.diagonal().add_(1e-12 * gram.diagonal().mean())
        beta = torch.linalg.solve(gram, weighted @ b)
        weight = 1 / ((b - beta @ A).square() + floor**2).sqrt()
    return torch.einsum("s,shw->hw", beta.to(x), bands)
