"""Two layers from one mixed X-ray: a sparse model with exclusion, minimised block by block."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .regression import curve_regression
from .separation_model import (
    State,
    Weights,
    convolve,
    terms,
    update_codes,
    update_layer,
    update_phi,
    update_psi,
    update_theta,
)


class Separated(NamedTuple):
    """x1 + x2 is the X-ray; the terms of the objective after each round; the unknowns."""

    x1: Float[Tensor, "h w"]
    x2: Float[Tensor, "h w"]
    history: Float[Tensor, "rounds 7"]
    state: State


def start(
    x: Float[Tensor, "h w"],
    y1: Float[Tensor, "h w"],
    bands: Float[Tensor, "s h w"],
    *,
    atom: int = 5,
    psi: int = 5,
    phi: int = 1,
) -> State:
    """y2 = x - y1, no codes, a cosine dictionary, psi the unit impulse, phi fitted to y1."""
    zero = x.new_zeros(atom * atom, *x.shape)
    impulse = x.new_zeros(1, psi, psi)
    impulse[0, psi // 2, psi // 2] = 1
    return State(
        y1, x - y1, zero, zero, cosines(atom).to(x), impulse, update_phi(y1, bands, size=phi)
    )


def cosines(size: int) -> Float[Tensor, "k size size"]:
    """The size * size products of discrete cosines, an orthonormal basis of the patches.

    >>> torch.allclose(torch.einsum("iab,jab->ij", *[cosines(4)] * 2), torch.eye(16), atol=1e-6)
    True
    """
    i = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(torch.pi * i[:, None] * (i + 0.5) / size)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.einsum("ia,jb->ijab", rows, rows).reshape(-1, size, size).float()


def separate(
    xray: Float[Tensor, "h w"],
    bands: Float[Tensor, "s h2 w2"],
    *,
    weights: Weights = Weights(),  # noqa: B008
    y1: Float[Tensor, "h w"] | None = None,
    rounds: int = 100,
    link: int = 1,
    learn: bool = True,
) -> Separated:
    """Minimise the sum of `terms` block by block: phi, codes, y2, y1, then theta and psi.

    The X-ray is first brought to mean 0 and mean square 1.

    Args:
        xray: the mixed X-ray.
        bands: of the visible picture, `visible_bands` or `standard_bands`.
        weights: of the terms.
        y1: the surface to begin with, in the unit of `xray`; `curve_regression` by default.
        rounds: passes through all blocks.
        link: size of the filters phi, odd.
        learn: whether theta and psi are learned, or stay as `start` has them.

    Returns:
        x1 and x2 with x1 + x2 = xray: psi*y1 and psi*y2, each with half of what they miss, and half
        of the mean of `xray`; no constant of the parts can be known.

    Raises:
        ValueError: shapes that do not fit, NaN, a constant X-ray, numbers out of range.

    Reference: see `separation_model.terms`.
    """
    if xray.shape != bands.shape[-2:]:
        raise ValueError(
            f"the X-ray {tuple(xray.shape)} and the bands {tuple(bands.shape[-2:])} must have one "
            "size, pixel on pixel"
        )
    if rounds < 1 or link < 1 or link % 2 == 0 or min(weights) < 0:
        raise ValueError(
            f"rounds = {rounds}, link = {link}, {weights}: expected rounds of at least 1, an odd "
            "link, weights of at least 0"
        )
    mean, scale = xray.mean(), xray.std(correction=0)
    if not scale > 0:
        raise ValueError("the X-ray is constant, or holds NaN")
    x = (xray - mean) / scale
    first = curve_regression(x, bands) if y1 is None else (y1 - y1.mean()) / scale
    state = start(x, first, bands, phi=link)
    duals, history = [None, None], []
    for _ in range(rounds):
        state, duals = one_round(x, bands, state, weights, duals=duals, link=link, learn=learn)
        history.append(terms(x, bands, state, weights))
    part = convolve(state.psi, state.y1[None])[0]
    missing = x - part - convolve(state.psi, state.y2[None])[0]
    x1 = scale * (part + missing / 2) + mean / 2
    return Separated(x1, xray - x1, torch.stack(history), state)


def one_round(
    x: Float[Tensor, "h w"],
    bands: Float[Tensor, "s h w"],
    state: State,
    weights: Weights,
    *,
    duals: list,
    link: int,
    learn: bool,
) -> tuple[State, list]:
    """Every block once; the objective does not rise."""
    w = weights
    if w.gamma > 0:
        state = state._replace(phi=update_phi(state.y1, bands, size=link))
    state = state._replace(
        z1=update_codes(state.z1, state.y1, state.theta, tau=w.tau1, lam=w.lam1, steps=2),
        z2=update_codes(state.z2, state.y2, state.theta, tau=w.tau2, lam=w.lam2, steps=2),
    )
    y2, dual2 = update_layer(2, x, bands, state, w, dual=duals[1])
    state = state._replace(y2=y2)
    y1, dual1 = update_layer(1, x, bands, state, w, dual=duals[0])
    state = state._replace(y1=y1)
    if learn:
        state = state._replace(theta=update_theta(state, w))
        state = state._replace(psi=update_psi(x, state))
    return state, [dual1, dual2]
