"""LINN transform for clean pictures with few details (chapter 06_linn)."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tutorial_lib.data import photographs
from tutorial_lib.data.patches import clean_patches, origin, random
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.linn import LINNTransform, keep_largest

from ..loop import Recipe
from .linn_soft import PROFILES as DENOISING
from .linn_soft import SIGMA

PROFILES = {k: {**v, "steps": min(v["steps"], 600)} for k, v in DENOISING.items()}


def few_details(
    network: nn.Module, x: Float[Tensor, "b h w"], fraction: float | Tensor
) -> Float[Tensor, "b h w"]:
    """Images rebuilt from their coarse part and their fraction * h * w largest details."""
    coeffs = keep_largest(network.analysis(x, SIGMA), fraction)
    return network.synthesis(coeffs, SIGMA)


def loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """Mean squared error with few details, 10 log10 of it, mean over patches."""
    x, fraction = batch
    error = (few_details(network, x, fraction) - x).square().mean((1, 2))
    return 10 * torch.log10(error + 1e-6).mean()


def batch(
    index: Int[Tensor, " b"], *, size: int, seed: int, bundled: bool
) -> tuple[Float[Tensor, "b size size"], Float[Tensor, " b"]]:
    """Clean patches, and the fraction of details that each keeps: 2 % to 20 % of the pixels."""
    x = clean_patches(index, size=size, seed=seed, bundled=bundled)
    draws = [torch.rand((), generator=random(int(i), seed, stream=1)) for i in index]
    return x, 0.02 * 10 ** torch.stack(draws)


def recipe(
    *,
    size: int,
    batch_size: int,
    lr: float = 2e-3,
    pictures: int = 12,
    bundled: bool = False,
    seed: int = 0,
) -> Recipe:
    """A `LINNTransform` that rebuilds patches from few details, validated with 8 % of them.

    Args:
        size: pixels a side of a patch, a multiple of 4.
        batch_size: patches of a step.
        lr: largest learning rate.
        pictures: bundled photographs to validate on.
        bundled: train on the bundled photographs in any case (for quick trials).
        seed: of the patches and of the fractions.
    """
    x = photographs(size=256)[:pictures]

    def validate(network: nn.Module) -> dict[str, float]:
        device = next(network.parameters()).device
        return {"psnr": psnr(few_details(network, x.to(device), 0.08).cpu(), x).mean().item()}

    return Recipe(
        network=LINNTransform,
        batch=partial(batch, size=size, seed=seed, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        data="the twelve bundled photographs" if bundled else origin(),
    )
