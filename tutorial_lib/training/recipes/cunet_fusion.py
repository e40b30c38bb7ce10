"""CU-Net that fuses two photographs, each sharp where the other is blurred (chapter 14_cunet)."""

from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutorial_lib.data import photographs
from tutorial_lib.data.patches import clean_patches, origin, random
from tutorial_lib.fusion import focus_pair, random_corner
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.cunet import CUNet

from ..loop import Recipe
from ..weights import load_network
from . import cunet

PROFILES = cunet.profiles(2_000)


def batch(
    index: Int[Tensor, " b"], *, size: int, seed: int = 0, bundled: bool = False
) -> tuple[Float[Tensor, "b 1 s s"], Float[Tensor, "b 1 s s"], Float[Tensor, "b 1 s s"]]:
    """Two partly blurred patches and the sharp one, all without the mean of the two."""
    x = clean_patches(index, size=size, seed=seed, bundled=bundled)
    streams = [random(int(i), seed, stream=1) for i in index]
    corners = torch.stack([random_corner((size, size), generator=g) for g in streams])
    a, b, _ = focus_pair(x, corners)
    mean = (a + b).mean((-2, -1), keepdim=True) / 2
    return tuple((t - mean)[:, None] for t in (a, b, x))


def loss(network: CUNet, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """1000 x mean squared error, as published."""
    a, b, x = batch
    return 1000 * (network(a, b) - x).square().mean()


def recipe(
    *, batch_size: int, size: int, lr: float, bundled: bool = False, seed: int = 0
) -> Recipe:
    """CU-Net for fusion: the settings of `cunet.recipe`."""
    x = photographs(size=256)[:2]
    held_out = focus_pair(x, torch.tensor([[40, 60], [100, 80]]))

    def validate(network: CUNet) -> dict[str, float]:
        device = next(network.parameters()).device
        fused = [
            join(network, a.to(device), b.to(device)) for a, b, _ in zip(*held_out, strict=True)
        ]
        return {"psnr": psnr(torch.stack(fused).cpu(), x).mean().item()}

    return Recipe(
        network=partial(CUNet, fusion=True),
        batch=partial(batch, size=size, seed=seed, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        clip=3.0,
        ema=0.999,
        data="the twelve bundled photographs" if bundled else origin(),
    )


def join(network: CUNet, a: Float[Tensor, "h w"], b: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """The fused image by a given network."""
    mean = (a + b).mean() / 2
    return cunet.by_parts(network, a - mean, b - mean) + mean


@cache
def trained() -> CUNet:
    """The network with the weights that come with the package."""
    return load_network("cunet_fusion", CUNet(fusion=True))


@torch.no_grad()
def fuse(a: Float[Tensor, "h w"], b: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Two gray photographs of one scene, of any size, to one that is sharp wherever one is."""
    return join(trained(), a, b)
