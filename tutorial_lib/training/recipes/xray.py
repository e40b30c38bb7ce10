"""The X-ray separation network for one painting (chapter 16_xray_network)."""

import math
from functools import cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, mse_loss, pad, unfold

from tutorial_lib.data import luma, mixture, xray_pairs
from tutorial_lib.data.patches import random
from tutorial_lib.networks.xray import Parts, Response, XRayNet
from tutorial_lib.regression import linear_regression
from tutorial_lib.total_variation import neighbour_differences

from ..evaluation import by_tiles
from ..loop import Recipe

FEATURES = ("luma", "luma and colours", "luma, colours and bands")  # of `solve`
FLOOR = 1e-6  # of squared edges: an edge of 1/1000 counts half
PROFILES = {
    "smoke": {"steps": 8, "batch_size": 2, "patch": 32, "size": 96},
    "cpu": {"steps": 1_000, "batch_size": 8, "patch": 48, "size": 256},
    "full": {"steps": 3_000, "batch_size": 16, "patch": 64, "size": 256},
}


def recipe(
    *,
    batch_size: int,
    patch: int,
    size: int = 256,
    ratio: float = 0.5,
    lr: float = 3e-3,
    head: str = "response",
    layers: int = 2,
    seed: int = 0,
) -> Recipe:
    """The first pair of bundled photographs, mixed.

    Args:
        batch_size, patch: patches of a step, and their pixels a side.
        size: pixels a side of the mixture.
        ratio: share of the surface.
        lr: the largest learning rate.
        head, layers: of `XRayNet`.
        seed: of the patches.
    """
    visible, xray = bundled_mixture(size, ratio)[:2]
    settings = {"batch_size": batch_size, "patch": patch, "lr": lr, "seed": seed}
    return recipe_for(visible, xray, head=head, layers=layers, **settings)


@cache
def bundled_mixture(size: int = 256, ratio: float = 0.5):
    """The first pair of bundled photographs as a `Mixture`."""
    _, visible, hidden = xray_pairs(size=size, bundled=True)[0]
    return mixture(visible, hidden, ratio=ratio)


def recipe_for(
    visible: Float[Tensor, "3 h w"],
    xray: Float[Tensor, "h w"],
    *,
    batch_size: int = 8,
    patch: int = 48,
    lr: float = 1e-2,
    head: str = "response",
    layers: int = 2,
    maps: int = 16,
    exclusion: float = 0.1,
    seed: int = 0,
) -> Recipe:
    """The recipe for one painting: all that is trained on are patches of these two pictures.

    Args:
        visible: the painting, in [0, 1].
        xray: its mixed X-ray, in any unit; a range of about one is expected.
        batch_size, patch, lr: as in `recipe`. A patch is no larger than the painting.
        head, layers, maps: of `XRayNet`.
        exclusion: weight of the exclusion loss.
        seed: of the patches.

    Raises:
        ValueError: sizes that differ.
    """
    if visible.shape[-2:] != xray.shape:
        raise ValueError(
            f"the picture and its X-ray must be of one size, got {tuple(visible.shape[-2:])} and "
            f"{tuple(xray.shape)}"
        )
    patch = min(patch, *xray.shape)
    zeros = torch.zeros_like(xray)
    guess = zeros if head == "response" else linear_regression(xray, visible)
    painting = torch.cat([visible, (xray - xray.mean())[None], guess[None]])
    middle = [slice(max(0, n // 2 - 96), n // 2 + 96) for n in xray.shape]
    held = parts_of(painting[(slice(None), *middle)][None])

    def validate(network: XRayNet) -> dict[str, float]:
        device = next(network.parameters()).device
        batch = tuple(t.to(device) for t in held)
        return {"minus_loss": -loss(network, batch, 0, exclusion=exclusion).item()}

    return Recipe(
        network=partial(XRayNet, head=head, layers=layers, maps=maps),
        batch=partial(patches, painting, size=patch, seed=seed),
        loss=partial(loss, exclusion=exclusion),
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        ema=0.98,
        data="one painting and its mixed X-ray",
    )


def patches(
    painting: Float[Tensor, "c h w"], index: Int[Tensor, " b"], *, size: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Squares of the painting: colours, X-ray and first guess; each depends on its number alone."""
    squares = []
    for i in index:
        g = random(int(i), seed)
        top, left = (int(torch.randint(n - size + 1, (), generator=g)) for n in painting.shape[1:])
        squares.append(painting[:, top : top + size, left : left + size])
    return parts_of(torch.stack(squares))


def parts_of(painting: Float[Tensor, "b 5 h w"]) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, X-ray and first guess."""
    return painting[:, :3], painting[:, 3:4], painting[:, 4:]


def loss(
    network: XRayNet, batch: tuple[Tensor, Tensor, Tensor], step: int, *, exclusion: float = 0.1
) -> Float[Tensor, ""]:
    """What the network is trained with; the truth is in none of the terms.

    mean (x - x_1 - x_2)^2 + 1/2 mean (r - R(x_1))^2 + exclusion * e(x_1, x_2), as published, with
    the head "linear" or "nonlinear". The head "response" compares on the side of the X-ray,
    1/2 mean (x_1 - R(r))^2, and R itself is fitted by `edges(x - R(r))` and by nothing else.
    """
    visible, xray, _ = batch
    surface, hidden, seen = network(*batch)
    total = mse_loss(surface + hidden, xray) + exclusion * exclusion_loss(surface, hidden)
    if network.turned:
        return total + mse_loss(surface, seen.detach()) / 2 + edges(xray - seen)
    return total + mse_loss(seen, visible) / 2


def edges(x: Float[Tensor, "*b h w"]) -> Float[Tensor, ""]:
    """Mean magnitude of the differences, sqrt(d^2 + FLOOR), the two directions added.

    >>> edges(torch.tensor([[0.0, 1.0], [0.0, 1.0]])).round(decimals=3)
    tensor(1.0010)
    """
    return sum((d.square() + FLOOR).sqrt().mean() for d in neighbour_differences(x))


def exclusion_loss(
    a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"], *, scales: int = 3, eps: float = 1e-8
) -> Float[Tensor, ""]:
    """Edges that two pictures share, over `scales` scales and two directions.

    The mean of (mean over the pixels of (2 s(d a) - 1)^2 (2 s(alpha d b) - 1)^2 + eps)^(1/4),
    divided by 3 as published, with differences d, the logistic function s and
    alpha = 2 mean |d a| / mean |d b|; each scale halves the one before. eps keeps the gradient
    finite where a patch is flat. Patches of a batch are measured one by one.

    Reference: X. Zhang, R. Ng, Q. Chen, Single image reflection separation with perceptual losses,
    CVPR 2018.
    """
    total = 0.0
    for _ in range(scales):
        for u, v in zip(neighbour_differences(a), neighbour_differences(b), strict=True):
            size = [d.abs().mean((1, 2, 3), keepdim=True) for d in (u, v)]
            alpha = 2 * size[0] / (size[1] + 1e-6)
            both = (u / 2).tanh().square() * (alpha * v / 2).tanh().square()  # 2 s(t) - 1
            total = total + (both.mean((1, 2, 3)) + eps).pow(0.25).mean()
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return total / (3 * scales)


class Solved(NamedTuple):
    """The surface, and which of `FEATURES` it is made of."""

    surface: Float[Tensor, "h w"]
    features: str


@torch.no_grad()
def solve(
    head: Response,
    visible: Float[Tensor, "3 h w"],
    xray: Float[Tensor, "h w"],
    *,
    steps: int = 20,
    squares: int = 16,
    seed: int = 0,
) -> Solved:
    """The surface by linear combinations: of curves of luma, of each colour, and of R's bands.

    For fixed features `edges(x - R(r))` is convex. Its minimum is found by reweighted least
    squares: each step solves the normal equations of sum_n w_n (d_n x - d_n R)^2 with
    w_n = 1 / sqrt(e_n^2 + FLOOR) and the residuals e_n of the step before. Curves are piecewise
    linear, with a knot at every 15th of the values; bands have filters of the width of `Response`.

    The fewest features that suffice are taken: curves of luma; these and curves of the colours;
    these and the bands. k features and n differences cost n log(mean |e|) + k/2 log n, which is
    the Bayesian information criterion for errors of a Laplace density.

    Args:
        head, visible, xray: a trained one, and what it was trained on.
        steps: of the reweighting.
        squares: of 64 x 64 pixels, at random, that are looked at; all of a small painting.
        seed: of that choice.
    """
    colours = torch.cat([luma(visible)[None], visible])
    some = colours.flatten(1)[:, :: max(1, xray.numel() // 100_000)]
    knots = torch.quantile(some, torch.linspace(0, 1, 16), dim=1).T

    def features(r: Float[Tensor, "3 h w"]) -> Float[Tensor, "k h w"]:
        h, w = r.shape[1:]
        size = head.filters.shape[-1]
        bands = pad(head.bands(r[None]), (size // 2,) * 4, mode="reflect")
        curves = [hats(c, at.unique()) for c, at in zip([luma(r), *r], knots, strict=True)]
        return torch.cat([*curves, unfold(bands, size)[0].unflatten(1, (h, w))])

    painting = torch.cat([visible, xray[None], xray[None]])
    if xray.numel() > squares * 64**2:
        index = torch.arange(squares)
        cut = torch.cat(patches(painting, index, size=min(64, *xray.shape), seed=seed)[:2], 1)
    else:
        cut = painting[None]
    parts = [(features(p[:3]), p[3]) for p in cut]
    rows = torch.cat([d.flatten(1) for f, _ in parts for d in neighbour_differences(f)], 1).double()
    target = torch.cat([d.flatten() for _, x in parts for d in neighbour_differences(x)]).double()
    counts = [len(at.unique()) for at in knots]
    best, least = None, math.inf
    for name, k in zip(FEATURES, (counts[0], sum(counts), len(rows)), strict=True):
        weight = torch.ones_like(target)
        for _ in range(steps):
            weighted = rows[:k] * weight
            gram = weighted @ rows[:k].T
            gram.diagonal().add_(1e-7 * gram.diagonal().mean())
            found = torch.linalg.solve(gram, weighted @ target)
            weight = ((target - found @ rows[:k]).square() + FLOOR).rsqrt()
        n = len(target)
        error = (target - found @ rows[:k]).abs().mean().clamp(min=1e-6)
        cost = n * error.log() + k / 2 * math.log(n)
        if cost < least:
            best, taken, least = found.float(), name, cost

    def combine(r: Float[Tensor, "3 h w"]) -> Float[Tensor, "1 h w"]:
        return torch.einsum("k,khw->hw", best, features(r)[: len(best)])[None]

    return Solved(by_tiles(combine, visible, size=256, margin=4)[0], taken)


def hats(x: Float[Tensor, "h w"], knots: Float[Tensor, " k"]) -> Float[Tensor, "k h w"]:
    """Piecewise linear functions of x, each 1 at one of the increasing knots and 0 at the others.

    >>> hats(torch.tensor([[0.0, 0.25]]), torch.tensor([0.0, 0.5, 1.0]))[:, 0, 1]
    tensor([0.5000, 0.5000, 0.0000])
    """
    up = (x - knots[:-1, None, None]) / knots.diff()[:, None, None]
    up = up.clamp(0, 1)  # 0 below an interval, 1 above
    one, none = torch.ones_like(x)[None], torch.zeros_like(x)[None]
    return torch.cat([one, up]) - torch.cat([up, none])


@torch.no_grad()
def separate_with(
    network: XRayNet, visible: Float[Tensor, "3 h w"], xray: Float[Tensor, "h w"]
) -> Parts:
    """The network's two X-rays of a whole painting, without their means; `seen` besides."""
    zeros = torch.zeros_like(xray)
    guess = zeros if network.turned else linear_regression(xray, visible)
    painting = torch.cat([visible, (xray - xray.mean())[None], guess[None]])

    def run(tile: Float[Tensor, "5 h w"]) -> Float[Tensor, "n h w"]:
        return torch.cat(network(*parts_of(tile[None])), 1)[0]

    result = by_tiles(run, painting, size=512, margin=32)
    return Parts(*(t[None] for t in (result[:1], result[1:2], result[2:])))
