"""Robust principal component analysis: a matrix as one of low rank plus a sparse one."""

import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .operators import NotConvergedWarning
from .prox import _check_values


class Pursuit(NamedTuple):
    """What `low_rank_plus_sparse` returns.

    Args:
        low_rank, sparse: L and S, as y.
        gap: relative duality gap at the end: F is at most that share above its minimum.
        steps: steps taken.
        converged: whether the gap met rtol.
    """

    low_rank: Float[Tensor, "bands n"]
    sparse: Float[Tensor, "bands n"]
    gap: float
    steps: int
    converged: bool


def shrink_singular_values(
    v: Float[Tensor, "bands n"], threshold: float | int
) -> tuple[Float[Tensor, "bands n"], Float[Tensor, " bands"]]:
    """argmin_L 1/2 ||v - L||_F^2 + threshold ||L||_*, and the singular values of L.

    ||L||_* is the sum of the singular values: they are soft-thresholded, the vectors stay.

    >>> shrink_singular_values(torch.diag(torch.tensor([3.0, 1.0])), 2.0)[0]
    tensor([[1., 0.],
            [0., 0.]])
    """
    squares, vectors = torch.linalg.eigh(v @ v.mT)
    values = squares.clamp(min=0).sqrt()
    kept = (values - threshold).clamp(min=0)
    share = kept / values.clamp(min=torch.finfo(v.dtype).tiny)
    return vectors @ (share[:, None] * (vectors.mT @ v)), kept


def pursuit_objective(
    y: Float[Tensor, "bands n"],
    low_rank: Float[Tensor, "bands n"],
    sparse: Float[Tensor, "bands n"],
    *,
    tau: float,
    lam: float,
) -> float:
    """F(L, S) = 1/2 ||y - L - S||_F^2 + tau ||L||_* + lam ||S||_1."""
    nuclear = torch.linalg.eigvalsh(low_rank @ low_rank.mT).clamp(min=0).sqrt().sum()
    square = (y - low_rank - sparse).square().sum()
    return float(square / 2 + tau * nuclear + lam * sparse.abs().sum())


def low_rank_plus_sparse(
    y: Float[Tensor, "bands n"],
    *,
    tau: float,
    lam: float,
    max_steps: int = 500,
    rtol: float = 1e-4,
) -> Pursuit:
    """argmin over L, S of F(L, S) = 1/2 ||y - L - S||_F^2 + tau ||L||_* + lam ||S||_1.

    Low-rank matrix recovery (stable principal component pursuit). The best S for an L is the soft
    threshold of y - L; put in, it leaves a Huber function of y - L, smooth with Lipschitz constant
    1, and FISTA with `shrink_singular_values` minimises over L. Every Q with singular values of at
    most tau and entries of at most lam bounds the minimum from below by <Q, y> - 1/2 ||Q||^2;
    the clipped residual, scaled, is such a Q: that is the gap.

    Args:
        y: (bands, n); for bands of different noise, divided by their levels.
        tau: positive; sqrt(n) + sqrt(bands) is where noise of level 1 ends.
        lam: positive, in the unit of y.
        max_steps: at least 1.
        rtol: stop when the relative gap is at most this.

    Raises:
        ValueError: NaN, integers, numbers outside their ranges.

    Warns:
        NotConvergedWarning: the gap is above rtol after max_steps.

    Reference: H. Zhang, W. He, L. Zhang, H. Shen, Q. Yuan, Hyperspectral image restoration using
    low-rank matrix recovery, IEEE Trans. Geosci. Remote Sens. 52, 2014.

    >>> y = torch.ones(4, 50)
    >>> y[2, 7] = 9.0
    >>> found = low_rank_plus_sparse(y, tau=1.0, lam=0.5)
    >>> found.sparse.nonzero().tolist()
    [[2, 7]]
    """
    _check_values(y, "y")
    if not (0 < tau < math.inf and 0 < lam < math.inf and rtol > 0 and max_steps >= 1):
        raise ValueError(
            f"tau = {tau}, lam = {lam}, rtol = {rtol}, max_steps = {max_steps}: all positive"
        )
    L = ahead = torch.zeros_like(y)
    t, gap, steps = 1.0, math.inf, 0
    while steps < max_steps and gap > rtol:
        old, before = L, t
        L, values = shrink_singular_values(ahead + (y - ahead).clamp(-lam, lam), tau)
        if ((ahead - L) * (L - old)).sum() > 0:  # momentum leads uphill: start it anew
            before = 1.0
        t = (1 + math.sqrt(1 + 4 * before**2)) / 2
        ahead = L + (before - 1) / t * (L - old)
        steps += 1
        if steps % 5 == 0 or steps == max_steps:
            gap = _gap(y, L, float(values.sum()), tau, lam)
    if gap > rtol:
        warnings.warn(
            f"low_rank_plus_sparse: relative gap {gap:.1e} > {rtol:g} after {steps} steps",
            NotConvergedWarning,
            stacklevel=2,
        )
    S = (y - L) - (y - L).clamp(-lam, lam)
    return Pursuit(L, S, gap, steps, gap <= rtol)


def _gap(y: Tensor, L: Tensor, nuclear: float, tau: float, lam: float) -> float:
    """Relative duality gap at L and its best S."""
    r = y - L
    q = r.clamp(-lam, lam)
    square, along = float(q.square().sum()), float((q * y).sum())
    primal = square / 2 + lam * float((r - q).abs().sum()) + tau * nuclear
    largest = float(torch.linalg.eigvalsh(q @ q.mT)[-1].clamp(min=0)) ** 0.5
    scale = min(tau / largest, 1.0) if largest else 1.0  # entries are within lam as they are
    return (primal - scale * along + scale**2 * square / 2) / max(primal, 1e-300)
