"""What the learned equilibrium and its unrolled twin share (chapter 18_deep_equilibrium)."""

from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutorial_lib.data import add_noise, photographs
from tutorial_lib.data.patches import clean_patches, origin, random
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.sparse_equilibrium import SparseEquilibrium

from ..loop import Recipe
from ..weights import load_network

SIGMA = 25 / 255
DEPTH = 5  # steps of the unrolled twin


def profiles() -> dict[str, dict]:
    """Settings at the three sizes."""
    small = {"steps": 8, "batch_size": 2, "size": 16, "pictures": 1, "bundled": True}
    large = {"batch_size": 8, "size": 40, "pictures": 4, "bundled": False}
    return {"smoke": small, "cpu": {"steps": 500, **large}, "full": {"steps": 20_000, **large}}


def batch(
    index: Int[Tensor, " b"], *, size: int, bundled: bool = False
) -> tuple[Float[Tensor, "b size size"], Float[Tensor, "b size size"]]:
    """Clean patches, and the same with white noise of sigma = 25/255."""
    x = clean_patches(index, size=size, bundled=bundled)
    noise = [torch.randn(size, size, generator=random(int(i), 0, stream=1)) for i in index]
    return x, x + SIGMA * torch.stack(noise)


def loss(network: SparseEquilibrium, batch: tuple[Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """The mean squared error of the restored patches, in units of 1/255."""
    x, y = batch
    return (255 * (network(y) - x)).square().mean()


def recipe(
    *,
    batch_size: int,
    size: int,
    pictures: int,
    bundled: bool,
    unrolled: int | None = None,
    mu: float = 0.1,
) -> Recipe:
    """A denoiser for one noise level, validated on bundled photographs.

    Args:
        batch_size, size: patches of a step, and their pixels a side.
        pictures: photographs to validate on, 96 x 96.
        bundled: train on the bundled photographs in any case (for quick trials).
        unrolled, mu: as in `SparseEquilibrium`.
    """
    x = photographs(size=96)[:pictures]
    y = add_noise(x, SIGMA, seed=0)

    def validate(network: SparseEquilibrium) -> dict[str, float]:
        restored = network(y.to(network.D.device)).cpu()
        return {"psnr": psnr(restored, x).mean().item()}

    return Recipe(
        network=partial(SparseEquilibrium, unrolled=unrolled, mu=mu),
        batch=partial(batch, size=size, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=5e-3,
        data="the twelve bundled photographs" if bundled else origin(),
    )


@cache
def trained(name: str, unrolled: int | None = None) -> SparseEquilibrium:
    """The network with the weights that come with the package."""
    return load_network(name, SparseEquilibrium(unrolled=unrolled))
