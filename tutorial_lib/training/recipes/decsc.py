"""DECSC for every noise of chapter 19_hyperspectral_noise at once (chapter 20_decsc)."""

from functools import cache, lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutorial_lib.data import (
    add_cube_noise,
    bsds500,
    cave,
    cave_scenes,
    colour_cube,
    invent_cube,
)
from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Solver
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.decsc import DECSC
from tutorial_lib.whitening import Whitened, whiten

from ..loop import Recipe
from ..weights import load_network

COLOURED = ("astronaut", "coffee", "chelsea", "rocket")  # where CAVE is not on disk
TESTING = ("balloons", "oil_painting")  # never trained on
HELD_OUT = ("flowers", "fake_and_real_sushi")  # nor on these: to watch the training
FLAT = 1e-7  # mean squared error that counts as none: 70 dB
FACTOR, PENALTY = 0.95, 1.0  # wanted of one sweep near the fixed point, and what missing it costs
EARLY, DEEP = range(2, 9), range(4, 13)  # evaluations before the sweeps that are recorded
POOL, CROPS = 8, 128  # noisy scenes that crops are taken from at a time, and how many from each
INVENTED = 0.5  # share of scenes that are photographs turned into cubes
FRESH = 0.5  # share of crops that get new white noise in the place of what the scene had
# Noise of a training scene: share, case, largest levels x 255 to choose from
NOISE = (
    (0.50, "mixture", (95,)),
    (0.30, "noniid", (15, 55, 95)),
    (0.08, "correlated", (None,)),
    (0.04, "stripes", (95,)),
    (0.04, "deadlines", (95,)),
    (0.04, "impulse", (95,)),
)
PROFILES = {
    "smoke": {"steps": 4, "batch_size": 2, "size": 16, "scene": 32, "deep": 3},
    "cpu": {"steps": 3350, "batch_size": 8, "size": 48, "scene": None, "deep": 2800},
    "full": {"steps": 60_000, "batch_size": 16, "size": 64, "scene": None, "deep": 50_000},
}


class Batch(NamedTuple):
    """Crops: what the network gets, what it does not see, and the truth."""

    detail: Float[Tensor, "b k size size"]
    base: Float[Tensor, "b k size size"]
    spectra: Float[Tensor, "b bands k"]
    truth: Float[Tensor, "b bands size size"]

    def cubes(self, detail: Tensor) -> Float[Tensor, "b bands size size"]:
        """As `Whitened.cube`, of each crop; in float32 always."""
        with torch.autocast(detail.device.type, enabled=False):
            return torch.einsum("nbk,nkhw->nbhw", self.spectra, self.base + detail.float())


@cache
def names() -> tuple[str, list[str], int]:
    """What there is to train on: in a few words, names of scenes, how many photographs."""
    try:
        found = [name for name in cave_scenes() if name not in TESTING + HELD_OUT]
    except FileNotFoundError:
        return "bundled colour photographs as cubes", list(COLOURED), 0
    try:
        count = len(photographs())
    except FileNotFoundError:
        return f"{len(found)} scenes of CAVE", found, 0
    return f"{len(found)} scenes of CAVE, {count} photographs as cubes", found, count


@cache
def photographs() -> list[Tensor]:
    """BSDS500 without the part that holds BSD68."""
    return bsds500("train") + bsds500("test")


@cache
def cube(name: str) -> Float[Tensor, "bands h w"]:
    """A scene, read when it is first needed; its largest value is 1."""
    x = colour_cube(name) if name in COLOURED else cave(name)
    return x / x.max()


def draw(number: int, size: int | None = None) -> tuple[Tensor, Tensor]:
    """A scene, dimmed by chance, and the same with one of the kinds of `NOISE`."""
    rng = np.random.default_rng((1, number))
    _, known, count = names()
    if count and rng.random() < INVENTED:
        x = invent_cube(photographs()[rng.integers(count)], rng)
    else:
        x = cube(known[rng.integers(len(known))])
    x = x[:, :size, :size] * rng.uniform(0.7, 1)
    _, case, levels = NOISE[rng.choice(len(NOISE), p=[share for share, _, _ in NOISE])]
    level = levels[rng.integers(len(levels))]
    sigma = None if level is None else level / 255
    return x, add_cube_noise(x, case, sigma=sigma, seed=int(rng.integers(2**31))).cube


@lru_cache(maxsize=6 * POOL)  # a gigabyte
def whitened(number: int, size: int | None) -> tuple[Tensor, Whitened]:
    """A scene of `draw`, and its noisy version as the network sees it."""
    x, y = draw(number, size)
    return x, whiten(y)


def sample(index: int, size: int, scene: int | None) -> tuple[Tensor, ...]:
    """A crop, turned by chance; each eigenimage with one of its two signs.

    Half of the crops are seen through noise drawn for them alone, white and of level one, after
    the images were multiplied by a number between 1/2 and 2: as if the noise were of another level.
    """
    rng = np.random.default_rng((0, index))
    x, found = whitened(index // (POOL * CROPS) * POOL + index % POOL, scene)
    row, column = (int(rng.integers(n - size + 1)) for n in x.shape[1:])
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], len(found.base))).float()

    def crop(v: Tensor) -> Tensor:
        v = torch.rot90(v[:, row : row + size, column : column + size], turns, (1, 2))
        return v.flip(2) if flip else v

    x, detail, base, spectra = crop(x), crop(found.detail), crop(found.base), found.spectra
    if rng.random() < FRESH:
        scale = float(10 ** rng.uniform(-0.3, 0.3))
        images = torch.einsum("kb,bhw->khw", torch.linalg.pinv(spectra), x)
        noise = torch.from_numpy(rng.normal(size=images.shape)).float()
        detail = scale * (images - base) + noise
        base, spectra = scale * base, spectra / scale
    sign_ = sign[:, None, None]
    return sign_ * detail, sign_ * base, spectra * sign, x


def batch(index: Int[Tensor, " b"], *, size: int, scene: int | None = None) -> Batch:
    """Crops of `size` pixels a side, of noisy scenes or of their first `scene` x `scene` pixels."""
    parts = zip(*(sample(int(i), size, scene) for i in index), strict=True)
    return Batch(*map(torch.stack, parts))


def loss(network: DECSC, batch: Batch, step: int, *, deep: int) -> Float[Tensor, ""]:
    """Minus the PSNR, the mean over bands of that of each, and a penalty for slow sweeps.

    The equilibrium is looked for in the evaluations that EARLY names, from step `deep` on DEEP.
    Then three sweeps z_1, z_2, z_3 are recorded, a phantom gradient; ||z_3 - z_2|| is to be less
    than FACTOR ||z_2 - z_1||.
    """
    batch = Batch(*batch)
    if network.unrolled is not None:
        return error(batch, network(batch.detail)).mean()
    f, z = network.problem(batch.detail)
    evaluations = EARLY if step < deep else DEEP
    solver = Solver(rtol=0.0, max_steps=evaluations[step % len(evaluations)])
    chain = [equilibrium(f, z, solver=solver, gradient="jfb").value]
    for _ in range(2):
        chain.append(f(chain[-1]))
    first, second = (distance(*pair) for pair in pairwise(chain))
    excess = (second / first - FACTOR).relu()
    return (error(batch, network.cubes(chain[-1])) + PENALTY * excess).mean()


def error(batch: Batch, detail: Tensor) -> Float[Tensor, " b"]:
    """Minus the PSNR of each crop in decibels, the mean over its bands."""
    square = (batch.cubes(detail) - batch.truth).square().mean((2, 3))
    return 10 * (square + FLAT).log10().mean(1)


def distance(u: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> Float[Tensor, " b"]:
    """||u - v|| of each sample's state."""
    squares = sum((a - b).square().flatten(1).sum(1) for a, b in zip(u, v, strict=True))
    return squares.clamp(min=1e-12).sqrt()


@cache
def watched(size: int) -> tuple[Tensor, Whitened]:
    """A scene for validation, its middle, with the mixture."""
    name = HELD_OUT[0] if names()[1] != list(COLOURED) else COLOURED[0]
    x = cube(name)
    a, b = ((n - size) // 2 for n in x.shape[1:])
    x = x[:, a : a + size, b : b + size]
    return x, whiten(add_cube_noise(x, "mixture", sigma=95 / 255, seed=0).cube)


def recipe(
    *,
    batch_size: int,
    size: int,
    scene: int | None,
    deep: int,
    lr: float = 1e-3,
    **network: Any,
) -> Recipe:
    """One network for every kind of noise, validated on a scene that is not trained on.

    Args:
        batch_size, size: crops of a step, and their pixels a side.
        scene: pixels a side of the scenes that are whitened, the whole ones if None.
        deep: a step, as in `loss`.
        lr: the largest learning rate.
        network: sizes and parts, as in `DECSC`.
    """

    def validate(network: DECSC) -> dict[str, float]:
        x, found = watched(64 if scene is None else scene)
        device = next(network.parameters()).device
        detail = network(found.detail[None].to(device))[0].cpu()
        return {"psnr": psnr(found.cube(detail), x).mean().item()}

    return Recipe(
        network=partial(DECSC, **network),
        batch=partial(batch, size=size, scene=scene),
        loss=partial(loss, deep=deep),
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        clip=2.0,
        data=names()[0],
    )


@cache
def trained() -> DECSC:
    """The network with the weights that come with the package."""
    return load_network("decsc", DECSC())
