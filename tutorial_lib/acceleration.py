"""The steps of Picard, Anderson and Broyden towards a zero of g(z) = f(z) - z.

Each function here takes the start and gives a function `step` from (number of the step, z, f(z),
g(z), ||g(z)||, whether this is the smallest so far for all samples) to the next z, (b, n).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .states import _precise

GROWTH = 10.0  # a residual this many times the smallest one so far: forget the history


def _picard(share: float | int) -> Callable[..., Tensor]:
    """z + share g; share = 1 is f(z)."""
    return lambda k, z, fz, g, distance, improved: fz if share == 1 else z + share * g


def _anderson(
    z: Tensor, m: int, share: float | int, ridge: float | int | None
) -> Callable[..., Tensor]:
    """The last m targets z + share g and residuals g, in a ring; the Gram matrix of g."""
    ridge = 10 * torch.finfo(_precise(z.dtype)).eps if ridge is None else ridge
    targets, residuals = [], []
    small = torch.float32 if z.device.type == "mps" else torch.float64  # which has no float64
    gram = torch.zeros(len(z), m, m, dtype=small, device=z.device)
    usable = torch.ones(len(z), m, dtype=torch.bool, device=z.device)
    whole, least = True, None  # whether all places are usable; the smallest distances so far

    def step(k: int, z: Tensor, fz: Tensor, g: Tensor, distance: Tensor, improved: bool) -> Tensor:
        nonlocal whole, least
        j, c = k % m, min(k + 1, m)
        targets[j:c] = [fz if share == 1 else z + share * g, *targets[j + 1 : c]]
        residuals[j:c] = [g, *residuals[j + 1 : c]]
        wide = g.to(_precise(g.dtype))
        products = [torch.linalg.vecdot(wide, u.to(wide.dtype)) for u in residuals]
        products = torch.stack(products, 1).to(small)
        gram[:, j, :c] = products
        gram[:, :c, j] = products
        lost, least = _leap(distance, least, improved)
        if lost is not None:
            usable[lost] = False
        if not (whole and lost is None):
            usable[:, j] = True
            whole = bool(usable.all())
        if c == 1:
            return targets[0]
        weights = _weights(gram[:, :c, :c], None if whole else usable[:, :c], j, ridge)
        weights = weights.to(z.dtype).split(1, 1)
        following = weights[0] * targets[0]
        for weight, target in zip(weights[1:], targets[1:], strict=True):
            following.addcmul_(weight, target)
        return following

    return step


def _leap(distance: Tensor, least: Tensor | None, improved: bool) -> tuple[Tensor | None, Tensor]:
    """For which samples the residual has leapt up, if any; the smallest since the last leap."""
    if improved or least is None:
        return None, distance
    lost = distance > GROWTH * least
    least = torch.where(lost, distance, torch.minimum(least, distance))
    return (lost if lost.any() else None), least


def _weights(gram: Tensor, usable: Tensor | None, j: int, ridge: float) -> Tensor:
    """argmin_a a^T G a + ridge a^T diag(G) a over the usable places, sum a = 1. (b, m).

    Where the system is singular all the same the ridge grows to 1e-3, and where this does not help
    either, the weight is all on place j: a plain step.
    """
    right = torch.ones_like(gram[:, :, :1])
    if usable is not None:
        right = usable[..., None].to(gram.dtype)
        apart = torch.eye(len(gram[0]), dtype=gram.dtype, device=gram.device)
        gram = torch.where(usable[:, :, None] & usable[:, None], gram, apart)
    weights, failed = _regularised(gram, right, ridge)
    if failed is not None:
        again, never = _regularised(gram, right, max(ridge, 1e-3))
        weights = torch.where(failed[:, None], again, weights)
        if never is not None:
            plain = torch.zeros_like(weights)
            plain[:, j] = 1
            weights = torch.where((failed & never)[:, None], plain, weights)
    return weights


def _regularised(gram: Tensor, right: Tensor, ridge: float) -> tuple[Tensor, Tensor | None]:
    """The weights, and for which samples they are not to be had, if any."""
    ridged = 1 + ridge * torch.eye(len(gram[0]), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram * ridged)
    weights = torch.cholesky_solve(right, factor)[..., 0]
    total = weights.sum(1, keepdim=True)
    good = (failed == 0) & (total[:, 0] > 0)  # NaN, too, is not good
    return weights / total, None if good.all() else ~good


def _broyden(z: Tensor, m: int, share: float | int) -> Callable[..., Tensor]:
    """B = -share I + U^T V, U and V (b, m, n)."""
    U, V = z.new_zeros(2, len(z), m, z.shape[1])
    before, least = None, None  # the last state and its g; the smallest distances so far

    def product(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
        """-share x + left^T right x."""
        return (left.mT @ (right @ x[..., None]))[..., 0] - share * x

    def step(k: int, z: Tensor, fz: Tensor, g: Tensor, distance: Tensor, improved: bool) -> Tensor:
        nonlocal before, least
        lost, least = _leap(distance, least, improved)
        if before is not None:
            place = (k - 1) % m
            if place == 0:
                U.zero_()
            s, y = z - before[0], g - before[1]
            v = product(V, U, s)  # B^T s
            curvature = (v * y).sum(1, keepdim=True)
            small = torch.finfo(z.dtype).eps * (v.norm(dim=1) * y.norm(dim=1))[:, None]
            U[:, place] = torch.where(
                curvature.abs() > small, (s - product(U, V, y)) / curvature, 0
            )
            V[:, place] = v
            if lost is not None:
                U.masked_fill_(lost[:, None, None], 0)
        before = z, g
        return z - product(U, V, g)

    return step
