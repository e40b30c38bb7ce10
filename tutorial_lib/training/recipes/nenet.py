"""NENet, the noise estimator of WINNet: noise levels from 0 to 55 (chapter 07_winnet)."""

import math
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib.data import add_noise, photographs
from tutorial_lib.data.patches import origin
from tutorial_lib.networks.winnet import NENet

from ..loop import Recipe
from ..weights import load_network
from .winnet import batch

PROFILES = {
    "smoke": {"steps": 8, "batch_size": 2, "size": 64, "pictures": 1, "bundled": True},
    "cpu": {"steps": 500, "batch_size": 2, "size": 192, "pictures": 12, "bundled": False},
    "full": {"steps": 10_000, "batch_size": 16, "size": 192, "pictures": 12, "bundled": False},
}


def loss(network: NENet, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """The mean squared error of the noise level, in units of 1/255."""
    _, y, sigma = batch
    return (255 * (network(y) - sigma)).square().mean()


def recipe(
    *, batch_size: int, size: int, pictures: int = 12, bundled: bool = False, seed: int = 0
) -> Recipe:
    """NENet on images of size x size pixels; validated at 5, 10, 25 and 50 on bundled photographs.

    Args:
        batch_size, size: images of a step, and their pixels a side.
        pictures: bundled photographs to validate on.
        bundled: train on the bundled photographs in any case (for quick trials).
        seed: of the images and of their noise.
    """
    x = photographs(size=256)[:pictures]

    def validate(network: NENet) -> dict[str, float]:
        device = network.kernels[0].device
        errors = {}
        for level in (5, 10, 25, 50):
            found = 255 * network(add_noise(x, level / 255).to(device))
            errors[f"rmse{level}"] = (found - level).square().mean().sqrt().item()
        return {"minus_rmse": -sum(errors.values()) / len(errors), **errors}

    return Recipe(
        network=NENet,
        batch=partial(batch, size=size, seed=seed, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        data="the twelve bundled photographs" if bundled else origin(),
    )


@cache
def trained() -> NENet:
    """The network with the weights that come with the package."""
    return load_network("nenet", NENet())


def estimate(y: Float[Tensor, "h w"]) -> float:
    """The noise level of a gray image, from at most about 65,000 of its patches."""
    stride = max(2, math.ceil(math.sqrt(y.numel() / 2**16)))
    with torch.no_grad():
        return trained()(y, stride=stride).item()
