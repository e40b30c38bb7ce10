"""Hyperspectral cubes made from colour photographs, to train on: outlines real, spectra not."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def invent_cube(
    rgb: Float[Tensor, "3 h w"], rng: np.random.Generator, bands: int = 31, side: int = 256
) -> Float[Tensor, "bands side side"]:
    """A cube with the outlines of a photograph: a piece of it with broad and with odd spectra.

    X = sum_c u_c a_c + sum_j w_j v_j phi_j(a): the three colours a_c of the pixels with broad
    Gaussian spectra u_c, and three to seven materials with narrower ones v_j, each of strength
    10^-2.2 to 10^-0.5 and there where a random sigmoid phi_j of the colour says. Such cubes have
    sharper outlines and more texture than most scenes of CAVE, and spectra that no material has.

    Args:
        rgb: a photograph, `side` pixels or more a side.
        rng: decides on everything.
        bands, side: of the cube.

    Returns:
        Not negative; the largest value is 1.

    >>> rng = np.random.default_rng(0)
    >>> cube = invent_cube(torch.rand(3, 40, 50), rng, side=32)
    >>> cube.shape, cube.max().item()
    (torch.Size([31, 32, 32]), 1.0)
    """
    if min(rgb.shape[1:]) < side:
        raise ValueError(f"{rgb.shape[1]} x {rgb.shape[2]} pixels: {side} x {side} are needed")
    row, column = (int(rng.integers(n - side + 1)) for n in rgb.shape[1:])
    a = rgb[:, row : row + side, column : column + side].flatten(1)
    place = torch.linspace(0, 1, bands)[:, None]

    def bumps(center: np.ndarray, width: np.ndarray) -> Tensor:
        return torch.exp(-(((place - torch.from_numpy(center)) / torch.from_numpy(width)) ** 2))

    j = int(rng.integers(3, 8))
    slope, offset = (torch.from_numpy(rng.normal(size=(j, n))) for n in (3, 1))
    phi = torch.tanh(4 * slope @ (a - a.mean(1, keepdim=True)).double() + offset)
    phi = (phi - phi.mean(1, keepdim=True)) / (phi.std(1, keepdim=True) + 1e-3) * a.std()
    broad = bumps(rng.uniform((0, 0.35, 0.65), (0.3, 0.6, 1)), rng.uniform(0.15, 0.4, 3))
    odd = bumps(rng.uniform(-0.1, 1.1, j), rng.uniform(0.05, 0.4, j))
    strength = torch.from_numpy(10 ** rng.uniform(-2.2, -0.5, j))
    x = (broad @ a.flip(0).double() + (odd * strength) @ phi).clamp(min=0)
    return (x / x.max()).float().view(bands, side, side)
