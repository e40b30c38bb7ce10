"""RealNVP on three densities of the plane whose entropy is known."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib.networks.flow import initialise, log_prob, real_nvp

from ..loop import Recipe

SIZES = {"density": "eight", "layers": 12, "width": 64, "batch_size": 512}
PROFILES = {
    "smoke": {"steps": 8, **SIZES},
    "cpu": {"steps": 6000, **SIZES},
    "full": {"steps": 6000, **SIZES},
}
POOL = 2**20  # samples to train on
RADIUS = 2.0  # of the ring, and of the circle on which the eight modes lie
SIGMA = 0.3  # of each mode


class Density(NamedTuple):
    """A density of the plane: how to draw from it, its logarithm, its differential entropy."""

    sample: Callable[[int, torch.Generator], Float[Tensor, "n 2"]]
    log_prob: Callable[[Float[Tensor, "n 2"]], Float[Tensor, " n"]]
    entropy: float  # nats


def gaussian(correlation: float = 0.9) -> Density:
    """Two standard normal variables with a correlation. Entropy: log(2 pi e) + log(1 - c^2) / 2.

    >>> round(gaussian(0.0).entropy, 4)  # log(2 pi e)
    2.8379
    """
    c, s = correlation, math.sqrt(1 - correlation**2)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        u = torch.randn(n, 2, generator=generator)
        return torch.stack([u[:, 0], c * u[:, 0] + s * u[:, 1]], 1)

    def log_density(x: Tensor) -> Tensor:
        rest = (x[:, 1] - c * x[:, 0]) / s
        return -(x[:, 0].square() + rest.square()) / 2 - math.log(2 * math.pi * s)

    return Density(sample, log_density, 1 + math.log(2 * math.pi * s))


def ring(sigma: float = 0.2) -> Density:
    """A uniform angle and a radius with normal law (2, sigma^2): p = N(||x||) / (2 pi ||x||).

    A radius below zero, ten sigmas away, is left out of account.
    """

    def sample(n: int, generator: torch.Generator) -> Tensor:
        r = RADIUS + sigma * torch.randn(n, generator=generator)
        angle = 2 * math.pi * torch.rand(n, generator=generator)
        return torch.stack([r * angle.cos(), r * angle.sin()], 1)

    def log_density(x: Tensor) -> Tensor:
        r = x.norm(dim=1)
        return _log_normal(r - RADIUS, sigma) - (2 * math.pi * r).log()

    return Density(sample, log_density, _entropy(log_density))


def eight(sigma: float = SIGMA) -> Density:
    """Eight round Gaussians of equal weight on a circle of radius 2."""
    angle = torch.arange(8) * math.pi / 4
    centres = RADIUS * torch.stack([angle.cos(), angle.sin()], 1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(8, (n,), generator=generator)
        return centres[which] + sigma * torch.randn(n, 2, generator=generator)

    def log_density(x: Tensor) -> Tensor:
        logs = _log_normal(x[:, None] - centres.to(x), sigma).sum(2)
        return logs.logsumexp(1) - math.log(8)

    return Density(sample, log_density, _entropy(log_density))


DENSITIES = {"gaussian": gaussian, "ring": ring, "eight": eight}


def grid(extent: float = 5.0, size: int = 400) -> tuple[Float[Tensor, "n 2"], float]:
    """The midpoints of size x size cells of the square [-extent, extent]^2, and a cell's area.

    >>> points, area = grid(5.0, 200)
    >>> round((ring().log_prob(points).exp().sum() * area).item(), 4)
    1.0
    """
    h = 2 * extent / size
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) * h - extent
    return torch.cartesian_prod(axis, axis).flip(1), h * h


def recipe(*, density: str, layers: int, width: int, batch_size: int, seed: int = 0) -> Recipe:
    """Maximum likelihood for one of `DENSITIES`, from a pool of a million samples.

    Args:
        density: "gaussian", "ring" or "eight".
        layers, width: of `real_nvp`.
        batch_size: samples of a step.
        seed: of the data.

    Raises:
        ValueError: an unknown density.
    """
    if density not in DENSITIES:
        raise ValueError(f"unknown density {density!r}: known are {', '.join(DENSITIES)}")
    law = DENSITIES[density]()
    pool = law.sample(POOL, torch.Generator().manual_seed(seed))

    def network() -> torch.nn.Module:
        return initialise(real_nvp(layers=layers, width=width), pool[:4096])

    def batch(indices: Tensor) -> Tensor:
        return pool[indices % POOL]

    def loss(flow: torch.nn.Module, x: Tensor, step: int) -> Tensor:
        return -log_prob(flow, x).mean()

    held_out = law.sample(2**15, torch.Generator().manual_seed(2**31 + seed))  # 32 bits count

    @torch.no_grad()
    def validate(flow: torch.nn.Module) -> dict[str, float]:
        device = next(flow.parameters()).device
        value = log_prob(flow, held_out.to(device)).mean().item()
        return {"log_likelihood": value, "gap": -value - law.entropy}

    return Recipe(
        network,
        batch,
        loss,
        validate,
        batch_size=batch_size,
        lr=2e-3,
        clip=10.0,
        data=f"samples of the density {density!r}",
    )


def _log_normal(x: Tensor, sigma: float) -> Tensor:
    return -(x / sigma).square() / 2 - math.log(sigma * math.sqrt(2 * math.pi))


def _entropy(log_density: Callable[[Tensor], Tensor]) -> float:
    """-sum p log p over a fine grid, in float64."""
    points, area = grid(5.0, 1000)
    logs = log_density(points)
    return -(logs.exp() * logs).sum().item() * area
