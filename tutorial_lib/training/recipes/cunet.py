"""What the CU-Nets share: pairs without their means, the loss, the scores, whole images."""

from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutorial_lib.data import Pair, bicubic, guided_patches, luma, on_disk
from tutorial_lib.data.guided import bundled_pairs, guided_origin
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.cunet import CUNet

from ..evaluation import by_tiles
from ..loop import Recipe
from ..weights import load_network

SCALE = 4
TILE, MARGIN = 264, 48  # pixels; more than MARGIN away from a pixel matters less than 1e-3 / 255
FLOOR = 5e-5  # of mean squared errors in the loss: (1.8 / 255)^2


def profiles(steps: int, **settings: Any) -> dict[str, dict[str, Any]]:
    """The three sizes: the published one trains on 64 patches of 64 x 64 pixels a step.

    Args:
        steps: of the profile cpu.
        settings: others of `recipe`, in all three.
    """
    settings = {"lr": 4e-4, **settings}
    few = {"steps": 8, "batch_size": 2, "size": 24, "bundled": True}
    few |= {"start": None} if "start" in settings else {}  # eight steps cannot improve on weights
    return {
        "smoke": settings | few,
        "cpu": {"steps": steps, "batch_size": 16, "size": 48, "bundled": False, **settings},
        "full": {"steps": 100_000, "batch_size": 64, "size": 64, "bundled": False, **settings},
    }


def batch(
    index: Int[Tensor, " b"], *, kind: str, size: int, seed: int = 0, bundled: bool = False
) -> tuple[Float[Tensor, "b 1 s s"], Float[Tensor, "b 1 s s"], Float[Tensor, "b 1 s s"]]:
    """Estimate x, guide y and target z of `guided_patches`, with a channel, the hardest of three.

    The means of x and y are taken away, and from z that of x.
    """
    options = {"kind": kind, "scale": SCALE, "size": size, "seed": seed, "bundled": bundled}
    x, y, z = guided_patches(index, draws=3, **options)
    mean = x.mean((-2, -1), keepdim=True)
    return tuple(t[:, None] for t in (x - mean, y - y.mean((-2, -1), keepdim=True), z - mean))


def loss(
    network: CUNet, batch: tuple[Tensor, Tensor, Tensor], step: int, *, l1: float = 0.0
) -> Float[Tensor, ""]:
    """Mean of ||z' - z||^2 / (||x - z||^2 + c) over patches + l1 x the mean magnitudes of u, v, c.

    Each patch counts by how much better it is than bicubic interpolation (published: by its squared
    error), so that edges of little contrast are learned too; c is FLOOR times the pixels.
    """
    x, y, z = batch
    codes = network.codes(x, y)
    missed = (x - z).square().mean((1, 2, 3)) + FLOOR
    error = ((network.join(codes) - z).square().mean((1, 2, 3)) / missed).mean()
    return error + l1 * sum(t.abs().mean() for t in codes) if l1 else error


def recipe(
    *,
    kind: str,
    batch_size: int,
    size: int,
    lr: float,
    bundled: bool = False,
    l1: float = 0.0,
    positive: bool = False,
    start: str | None = None,
    seed: int = 0,
) -> Recipe:
    """CU-Net for super-resolution by 4 with a guide.

    Args:
        kind: of the pairs, as in `guided_pairs`.
        batch_size, size: patches of a step, and their pixels a side.
        lr: the largest learning rate.
        bundled: train on bundled pictures in any case (for quick trials); where the set is not on
            disk that is done anyway, and the record says so.
        l1: weight of the magnitudes of the codes.
        positive: thresholds that cannot become negative.
        start: name of weights to begin from; None: at random.
        seed: of the patches.
    """
    bundled = bundled or not on_disk(kind)
    pair = bundled_pairs(kind)[0]
    held_out = Pair(pair.name, luma(pair.guide)[:256, :256], pair.target[:256, :256])

    def validate(network: CUNet) -> dict[str, float]:
        device = next(network.parameters()).device
        x, y = bicubic(held_out.target, scale=SCALE).to(device), held_out.guide.to(device)
        return {"psnr": psnr(restore(network, x, y).cpu(), held_out.target).item()}

    return Recipe(
        network=partial(begin, positive=positive, start=start),
        batch=partial(batch, kind=kind, size=size, seed=seed, bundled=bundled),
        loss=partial(loss, l1=l1),
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        clip=3.0,
        ema=0.999,
        data=guided_origin(kind, bundled=bundled),
    )


def begin(*, positive: bool, start: str | None) -> CUNet:
    """A new network, or one with the weights `start`, whose thresholds it may read as softplus."""
    network = CUNet(positive=positive)
    return network if start is None else load_network(start, network).train()


def restore(
    network: CUNet, x: Float[Tensor, "h w"], y: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """The target's estimate of a whole image: means removed, and that of x added."""
    mean = x.mean()
    return by_parts(network, x - mean, y - y.mean()) + mean


def by_parts(
    network: CUNet, x: Float[Tensor, "h w"], y: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """The network's result for images of any size, tile by tile."""

    def run(tile: Float[Tensor, "2 h w"]) -> Float[Tensor, "1 h w"]:
        return network(tile[None, :1], tile[None, 1:])[0]

    return by_tiles(run, torch.stack([x, y]), size=TILE, margin=MARGIN)[0]


@cache
def trained(name: str, positive: bool = False) -> CUNet:
    """The network with the weights that come with the package."""
    return load_network(name, CUNet(positive=positive))


@torch.no_grad()
def super_resolve(
    x: Float[Tensor, "h w"], y: Float[Tensor, "h w"], *, name: str, positive: bool = False
) -> Float[Tensor, "h w"]:
    """An image of any size, from its bicubic estimate x and the gray guide y."""
    return restore(trained(name, positive), x, y)
