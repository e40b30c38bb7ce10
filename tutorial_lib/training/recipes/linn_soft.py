"""DnINN with soft thresholds, at noise level 25 (chapter 06_linn)."""

from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tutorial_lib.data import add_noise, photographs
from tutorial_lib.data.patches import clean_patches, origin, random
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.linn import DnINN, Shrinkage
from tutorial_lib.thresholding import estimate_sigma

from ..evaluation import by_tiles
from ..loop import Recipe
from ..weights import load_network

SIGMA = 25 / 255
SIZES = {"size": 48, "batch_size": 8}
PROFILES = {
    "smoke": {"steps": 8, "lr": 1e-4, **SIZES, "pictures": 1, "bundled": True},
    "cpu": {"steps": 1200, "lr": 2e-3, **SIZES, "pictures": 12, "bundled": False},
    "full": {"steps": 1200, "lr": 2e-3, **SIZES, "pictures": 12, "bundled": False},
}


def loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """Mean squared error, in units of the noise variance."""
    x, y = batch
    return (network(y, SIGMA) - x).square().mean() / SIGMA**2


def batch(
    index: Int[Tensor, " b"], *, size: int, seed: int, bundled: bool
) -> tuple[Float[Tensor, "b size size"], Float[Tensor, "b size size"]]:
    """Clean patches, and the same with noise."""
    x = clean_patches(index, size=size, seed=seed, bundled=bundled)
    draws = [random(int(i), seed, stream=1) for i in index]
    return x, x + SIGMA * torch.stack([torch.randn(size, size, generator=g) for g in draws])


def recipe(
    *,
    size: int,
    batch_size: int,
    lr: float = 2e-3,
    pictures: int = 12,
    bundled: bool = False,
    seed: int = 0,
    shrinkage: Shrinkage = "soft",
) -> Recipe:
    """DnINN by pairs of clean and noisy patches, validated on bundled photographs.

    Args:
        size: pixels a side of a patch, a multiple of 4.
        batch_size: patches of a step.
        lr: largest learning rate; 8 steps from zero kernels bear a small one only.
        pictures: bundled photographs to validate on.
        bundled: train on the bundled photographs in any case (for quick trials).
        seed: of the patches and of their noise.
        shrinkage: of `DnINN`.
    """
    x = photographs(size=256)[:pictures]

    def validate(network: nn.Module) -> dict[str, float]:
        y = add_noise(x, SIGMA).to(next(network.parameters()).device)
        return {"psnr": psnr(network(y, SIGMA).cpu(), x).mean().item()}

    return Recipe(
        network=partial(DnINN, shrinkage=shrinkage),
        batch=partial(batch, size=size, seed=seed, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        data="the twelve bundled photographs" if bundled else origin(),
    )


@cache
def trained(shrinkage: Shrinkage = "soft") -> DnINN:
    """The network with the weights that come with the package."""
    return load_network(f"linn_{shrinkage}", DnINN(shrinkage=shrinkage))


def denoise(
    y: Float[Tensor, "h w"], sigma: float | None = None, *, shrinkage: Shrinkage = "soft"
) -> tuple[Float[Tensor, "h w"], float]:
    """Denoise a gray image of any size; the median of wavelet details gives a missing level."""
    level = estimate_sigma(y).item() if sigma is None else sigma
    return by_tiles(lambda tile: trained(shrinkage)(tile, level), y), level
