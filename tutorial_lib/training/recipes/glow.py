"""Glow on gray patches of photographs, from pixels (squeeze) or from orthonormal Haar bands."""

import math

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from tutorial_lib.data import photograph
from tutorial_lib.data.patches import clean_patches, origin, random
from tutorial_lib.networks.flow import Glow, bits_per_dim, initialise, log_prob

from ..loop import Recipe

SIZES = {
    "split": "haar",
    "size": 32,
    "levels": 3,
    "flow_steps": 3,
    "width": 32,
    "batch_size": 16,
}
PROFILES = {
    "smoke": {"steps": 8, **SIZES},
    "cpu": {"steps": 3000, **SIZES},
    "full": {"steps": 3000, **SIZES},
}


def recipe(
    *,
    split: str,
    size: int,
    levels: int,
    flow_steps: int,
    width: int,
    batch_size: int,
    seed: int = 0,
) -> Recipe:
    """Maximum likelihood of dequantised 8-bit patches, in bits per dimension.

    Args:
        split: "squeeze" or "haar".
        size: pixels along a side of a patch.
        levels, flow_steps, width: of `Glow`.
        batch_size: patches of a step.
        seed: of positions, flips and dequantisation.
    """

    def batch(index: Int[Tensor, " b"]) -> Tensor:
        x = 255 * clean_patches(index, size=size, seed=seed)[:, None]
        draws = [random(int(i), seed, stream=1) for i in index]
        return (x + torch.stack([torch.rand(1, size, size, generator=g) for g in draws])) / 256

    def network() -> Glow:
        glow = Glow((1, size, size), levels=levels, steps=flow_steps, width=width, split=split)
        return initialise(glow, batch(torch.arange(256)))

    @torch.no_grad()
    def validate(glow: nn.Module) -> dict[str, float]:
        device = next(glow.parameters()).device
        bits = [bits_per_dim(glow, x.to(device)) for x in held_out.split(64)]
        return {"minus_bits_per_dim": -torch.cat(bits).mean().item()}

    held_out = held_out_tiles(size)
    return Recipe(
        network, batch, bits_loss, validate, batch_size=batch_size, clip=10.0, data=origin()
    )


def bits_loss(glow: nn.Module, x: Tensor, step: int) -> Tensor:
    """Bits per dimension of a dequantised batch."""
    return 8 - log_prob(glow, x).mean() / (math.log(2) * x[0].numel())


def held_out_tiles(size: int = 32) -> UInt8[Tensor, "n 1 size size"]:
    """The tiles of four bundled photographs at their full size, 8-bit luminance.

    >>> held_out_tiles(32).shape
    torch.Size([854, 1, 32, 32])
    """
    names = ("camera", "astronaut", "coffee", "chelsea")
    return torch.cat([tiles(photograph(name, size=None), size) for name in names])


def tiles(image: Tensor, size: int) -> UInt8[Tensor, "n 1 size size"]:
    """The patches that lie side by side in an image in [0, 1], row by row, in 8 bits.

    >>> tiles(torch.ones(65, 40), 32).shape
    torch.Size([2, 1, 32, 32])
    """
    levels = (255 * image).round().clamp(0, 255).to(torch.uint8)
    return levels.unfold(0, size, size).unfold(1, size, size).reshape(-1, 1, size, size)
