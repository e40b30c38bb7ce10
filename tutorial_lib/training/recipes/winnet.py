"""WINNet, one scale, blind: noise levels from 0 to 55 (chapter 07_winnet)."""

from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutorial_lib.data import add_noise, photographs
from tutorial_lib.data.patches import clean_patches, origin, random
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.winnet import WINNet

from ..evaluation import by_tiles
from ..loop import Recipe
from ..weights import fill, load_network, load_weights

LARGEST = 55 / 255
PROFILES = {
    "smoke": {"steps": 8, "batch_size": 4, "size": 24, "pictures": 1, "bundled": True},
    "cpu": {"steps": 5_000, "batch_size": 16, "size": 48, "pictures": 6, "bundled": False},
    "full": {"steps": 100_000, "batch_size": 32, "size": 50, "pictures": 6, "bundled": False},
}


def batch(
    index: Int[Tensor, " b"],
    *,
    size: int,
    sigma: float | None = None,
    seed: int = 0,
    bundled: bool = False,
) -> tuple[Float[Tensor, "b size size"], Float[Tensor, "b size size"], Float[Tensor, " b"]]:
    """Clean patches, the same with white noise, and the noise levels.

    Args:
        index: global sample numbers (`clean_patches`).
        size: pixels a side.
        sigma: one noise level, in [0, 1]; None draws one per patch, uniform in [0, 55/255].
    """
    x = clean_patches(index, size=size, seed=seed, bundled=bundled)
    streams = [random(int(i), seed, stream=1) for i in index]
    level = torch.stack([LARGEST * torch.rand((), generator=g) for g in streams])
    if sigma is not None:
        level = torch.full_like(level, sigma)
    noise = torch.stack([torch.randn(size, size, generator=g) for g in streams])
    return x, x + level[:, None, None] * noise, level


def loss(network: WINNet, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """Half the squared error per patch + 10 ||S A - I||^2 + 0.1 R_spec on every tenth step."""
    x, y, sigma = batch
    error = (network(y, sigma) - x).square().sum() / (2 * len(x))
    identity = torch.stack([c.identity_penalty() for c in network.shrinkage]).mean()
    total = error + 10 * identity
    if step % 10 == 0:
        spectral = torch.stack([linn.spectral_penalty() for linn in network.linn]).mean()
        total = total + 0.1 * spectral
    return total


def recipe(
    *,
    batch_size: int,
    size: int,
    pictures: int = 6,
    bundled: bool = False,
    levels: int = 1,
    sigma: float | None = None,
    lr: float = 1e-3,
    start: str | None = None,
    seed: int = 0,
) -> Recipe:
    """WINNet for one noise level, or blind.

    Args:
        batch_size, size: patches of a step, and their pixels a side.
        pictures: bundled photographs to validate on.
        bundled: train on the bundled photographs in any case (for quick trials).
        levels: number of scales.
        sigma: one noise level, in [0, 1]; None: from 0 to 55/255.
        lr: the largest learning rate.
        start: name of weights with one scale to begin from, in each scale; None: at random.
        seed: of the patches and of their noise.
    """
    x = photographs(size=256)[:pictures]
    tested = [15, 25, 50] if sigma is None else [round(255 * sigma)]

    def validate(network: WINNet) -> dict[str, float]:
        device = network.shrinkage[0].theta.device
        scores = {}
        for level in tested:
            y = add_noise(x, level / 255).to(device)
            cleaned = torch.stack([network(one, level / 255) for one in y])
            scores[f"psnr{level}"] = psnr(cleaned.cpu(), x).mean().item()
        return {"psnr": sum(scores.values()) / len(scores), **scores}

    return Recipe(
        network=partial(begin, levels, start),
        batch=partial(batch, size=size, sigma=sigma, seed=seed, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        data="the twelve bundled photographs" if bundled else origin(),
    )


def begin(levels: int, start: str | None) -> WINNet:
    """A new network, or one whose scales are those of the weights `start`."""
    network = WINNet(levels)
    if start is not None:
        state, _ = load_weights(start)
        scales = [
            {k.replace(".0.", f".{j}.", 1): v for k, v in state.items()} for j in range(levels)
        ]
        fill(network, {k: v for scale in scales for k, v in scale.items()})
    return network


@cache
def trained(name: str = "winnet", levels: int = 1) -> WINNet:
    """The network with the weights that come with the package."""
    return load_network(name, WINNet(levels))


@torch.no_grad()
def denoise(
    y: Float[Tensor, "h w"],
    sigma: float | None = None,
    *,
    name: str = "winnet",
    levels: int = 1,
) -> tuple[Float[Tensor, "h w"], float]:
    """Denoise a gray image of any size; NENet estimates the noise level where it is None."""
    from . import nenet  # here, because it draws its patches with `batch`

    level = nenet.estimate(y) if sigma is None else sigma
    return by_tiles(lambda tile: trained(name, levels)(tile, level), y), level
