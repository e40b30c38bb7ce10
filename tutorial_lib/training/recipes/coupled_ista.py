"""What the coupled ISTA networks share: crops of pairs, the loss through the average, the sizes."""

import math
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib.data import Pair, bicubic, guided_patches, luma, on_disk
from tutorial_lib.data.guided import bundled_pairs, guided_origin
from tutorial_lib.dictionary import dct_dictionary
from tutorial_lib.metrics import psnr
from tutorial_lib.multimodal import JointModel
from tutorial_lib.networks.coupled_ista import CoupledISTA, ista_start, restore

from ..loop import Recipe
from ..weights import load_network

FLOOR = 5e-5  # mean squared error of interpolation below which a crop counts as flat


def profiles(steps: int) -> dict[str, dict[str, Any]]:
    """The three sizes of one network; `steps` are those of the full one."""
    full = {"steps": steps, "batch_size": 128, "lr": 6e-4, "bundled": False}
    smoke = full | {"steps": 8, "batch_size": 4, "bundled": True}
    return {"smoke": smoke, "cpu": full | {"steps": 4000}, "full": full}


def cosine_frame(size: int, atoms: int) -> Float[Tensor, "p atoms"]:
    """Cosines, the `atoms` lowest frequencies but the constant, turned into a tight frame.

    D D^T is a multiple of the projection on patches without mean, or, where there are fewer atoms
    than pixels, on those of low frequency.
    """
    count = max(size, math.isqrt(atoms) + 1)  # of frequencies an axis
    k = torch.arange(count)
    order = (k[:, None] ** 2 + k**2).flatten().argsort(stable=True)[1 : atoms + 1]
    U, _, V = torch.linalg.svd(dct_dictionary(size, count)[:, order].double(), full_matrices=False)
    r = min(size**2 - 1, atoms)
    return ((atoms / r) ** 0.5 * U[:, :r] @ V[:r]).float()


def cosine_model(size: int, atoms: int, guided: bool) -> JointModel:
    """A joint dictionary that needs no learning and gives back x: D_z c is near D_x a.

    With a guide the atoms of z come in pairs, with the codes S(u + v) and S(u - v), u from x and v
    from y: their sum changes its sign with x, as depth does, and feels the guide by its size only.
    """
    D = cosine_frame(size, atoms)
    if not guided:
        return JointModel(D, D, D, torch.eye(atoms), torch.eye(atoms))
    E = cosine_frame(size, atoms // 2)
    Q = E.mT @ D / (2 * torch.linalg.matrix_norm(E, 2) ** 2)
    return JointModel(D, D, torch.cat([E, E], 1), torch.cat([Q, Q]), torch.cat([Q, -Q]))


def network(size: int, atoms: int, layers: int, guided: bool) -> CoupledISTA:
    """As training finds it: ISTA with `cosine_model`."""
    empty = CoupledISTA(size, atoms, layers, guided=guided)
    model = cosine_model(size, atoms, guided)
    return ista_start(empty, model, nu=1e-2, threshold=5e-3 if guided else 1e-3)


def loss(
    network: CoupledISTA, batch: tuple[Tensor, Tensor, Tensor], step: int
) -> Float[Tensor, ""]:
    """Mean over the crops of ||restored - z||^2 / (||x - z||^2 + FLOOR), per pixel.

    Restored from patches at a distance of half their size; the outer half patch is left out: fewer
    patches cover it. Divided by the error of interpolation each crop weighs the same.
    """
    x, y, z = batch
    half = network.size // 2
    inner = (..., slice(half, -half), slice(half, -half))
    error = (restore(network, x, y, stride=half) - z)[inner].square().mean((-2, -1))
    return (error / ((x - z)[inner].square().mean((-2, -1)) + FLOOR)).mean()


def recipe(
    *,
    kind: str,
    scale: int,
    size: int,
    atoms: int,
    batch_size: int,
    lr: float,
    bundled: bool = False,
    layers: int = 4,
    guided: bool = True,
    seed: int = 0,
) -> Recipe:
    """A coupled ISTA network for one kind of pair and one scale.

    Args:
        kind: of the pairs, as in `guided_pairs`.
        scale: the target has been reduced by it.
        size, atoms, layers: of the network.
        batch_size: crops of a step, of 5/2 size pixels a side, each the hardest of four.
        lr: the largest learning rate.
        bundled: train on bundled pictures in any case (for quick trials); where the set is not on
            disk that is done anyway, and the record says so.
        guided: False: the network of a single modality.
        seed: of the crops.
    """
    bundled = bundled or not on_disk(kind)
    pair = bundled_pairs(kind)[0]
    inner = (slice(128, 256), slice(192, 320))
    held_out = Pair(pair.name, luma(pair.guide)[inner], pair.target[inner])

    def validate(network: CoupledISTA) -> dict[str, float]:
        device = next(network.parameters()).device
        x, y = bicubic(held_out.target, scale=scale).to(device), held_out.guide.to(device)
        return {"psnr": psnr(restore(network, x, y).cpu(), held_out.target).item()}

    drawn = {"kind": kind, "scale": scale, "size": 5 * size // 2, "draws": 4, "seed": seed}
    return Recipe(
        network=partial(network, size, atoms, layers, guided),
        batch=partial(guided_patches, **drawn, bundled=bundled),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        clip=1.0,
        data=guided_origin(kind, bundled=bundled),
    )


@cache
def trained(name: str, **sizes: Any) -> CoupledISTA:
    """The network with the weights that come with the package."""
    return load_network(name, CoupledISTA(**sizes))


@torch.no_grad()
def super_resolve(
    x: Float[Tensor, "h w"], y: Float[Tensor, "h w"], *, name: str, **sizes: Any
) -> Float[Tensor, "h w"]:
    """An image of any size from its bicubic estimate x and the gray guide y, clipped to [0, 1]."""
    return restore(trained(name, **sizes), x, y).clamp(0, 1)
