"""Convolutional sparse coding by ADMM, the data term solved at each frequency.

Shapes, boundaries and strides are those of `convolutional`.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .canvas import (
    Boundary,
    Stride,
    _eigen,
    _fft,
    _ifft,
    _kernel,
    _mix,
    _plan,
    _ridge,
    _spectrum,
    _unmix,
)
from .convolutional import conv_dictionary
from .operators import LinearOperator, NotConvergedWarning
from .prox import Weight
from .solvers import _check, lasso_gap

CHECK = 10  # steps of ADMM from one look at its residuals to the next


class ConvCoding(NamedTuple):
    """Maps with their certificate.

    Args:
        value: maps (*batch, maps, *grid).
        steps: steps taken, those of the slowest batch element.
        gap: (*batch), a bound of how far F is above its minimum, relative to F; NaN where
            rtol = 0.
        converged: (*batch), whether the gap met rtol; all False where rtol = 0.
        rho: (*batch), the last penalty.
    """

    value: Float[Tensor, "..."]
    steps: int
    gap: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]
    rho: Float[Tensor, "*batch"]


@torch.no_grad()
def csc_admm(
    y: Float[Tensor, "..."],
    filters: Float[Tensor, "maps channels *kernel"],
    lam: Weight,
    *,
    boundary: Boundary = "circular",
    stride: Stride = 1,
    z0: Float[Tensor, "..."] | None = None,
    rho: float | None = None,
    relax: float = 1.8,
    adapt: bool = True,
    max_steps: int = 1000,
    rtol: float | int = 1e-4,
    callback: Callable[[int, Tensor], object] | None = None,
) -> ConvCoding:
    """argmin_z 1/2 ||y - D z||^2 + ||lam * z||_1 by ADMM with the data term solved by FFT.

    x <- argmin_x 1/2 ||y - D x||^2 + rho/2 ||x - (z - u)||^2,
    z <- S_{lam/rho}(x + u), u <- u + x - z.

    At one frequency D is a row (channels * stride^d rows), and the first line one division
    by rho + |D|^2 (Sherman, Morrison; Woodbury). Samples outside a "padded" image are filled with
    those of D x before each step, which majorises its data term. Every
    `CHECK` steps rho is multiplied by the root of the primal over the dual residual, both relative,
    bounded by 1 + (3 CHECK / k)^2 and its inverse: these have a finite product, so rho settles.

    Args:
        y: images (*batch, channels, *shape).
        filters, boundary, stride: see `conv_dictionary`.
        lam: nonnegative, a number or a tensor that broadcasts against (*batch, maps, *grid).
        z0: where to start, (*batch, maps, *grid); zero if None.
        rho: first penalty, positive; None takes a sixteenth of the mean
            eigenvalue of D D^T.
        relax: in (0, 2), x <- relax x + (1 - relax) z before the second line.
        adapt: let rho follow the residuals.
        max_steps: at least 1.
        rtol: an element stops, and keeps its maps, when its duality gap is at most rtol F. 0 takes
            exactly max_steps and measures no gap.
        callback: called after each step with the step, from 1, and the maps.

    Returns:
        `ConvCoding`. Each batch element is solved as if it were alone.

    Raises:
        ValueError: as `conv_dictionary`; NaN, dtypes, devices or shapes that do not fit; lam < 0,
            rho <= 0, relax outside (0, 2), max_steps < 1, rtol < 0.

    Warns:
        NotConvergedWarning: once, if rtol > 0 and an element did not meet it.

    Reference: B. Wohlberg, Efficient algorithms for convolutional sparse representations, IEEE
    Trans. Image Processing, 2016.

    >>> delta = torch.ones(1, 1, 1)
    >>> csc_admm(torch.tensor([[3.0, 0.5, -2.0]]), delta, 1.0, rtol=1e-6).value.round(decimals=3)
    tensor([[ 2., 0., -1.]])
    """
    d = len(_kernel(filters))
    if y.ndim <= d:
        raise ValueError(f"y of shape {tuple(y.shape)}: (*batch, channels, {d} axes) is needed")
    plan = _plan(filters, y.shape[-d:], boundary, stride)
    D = conv_dictionary(filters, plan.shape, boundary=boundary, stride=stride)
    full = _check(D, y, lam, z0)
    if rho is not None and not 0 < rho < math.inf:
        raise ValueError(f"rho = {rho}: a positive number is needed")
    if not 0 < relax < 2:
        raise ValueError(f"relax = {relax}: a number between 0 and 2 is needed")
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps = {max_steps}: a whole number of at least 1 is needed")
    if not rtol >= 0:
        raise ValueError(f"rtol = {rtol}: it must be nonnegative")

    batch = full[: -d - 1]
    hat = _spectrum(plan, filters)
    eigen = _eigen(hat)
    y = y.expand(*batch, *y.shape[-d - 1 :]).reshape(-1, *y.shape[-d - 1 :])
    lam = torch.as_tensor(lam, dtype=y.dtype, device=y.device)
    own = lam.ndim > d + 1
    lam = lam.expand(full).reshape(-1, *full[-d - 1 :]) if own else lam
    lift = (-1, *(1 for _ in range(d + 1)))
    start = float(eigen[0].mean()) / 16 if rho is None else rho
    rho_ = y.new_full((len(y),), start or 1.0)
    if z0 is None:
        z = y.new_zeros(len(y), *D.shape_in)
        u = torch.zeros_like(z)
    else:  # at a minimiser rho u is the correlation of the residual
        z = z0.expand(full).reshape(-1, *D.shape_in).clone()
        u = D.adjoint(y - D(z)).clamp(-lam, lam) / rho_.reshape(lift)
    inside = plan.unwindow(torch.ones_like(y[:1])) > 0 if plan.padded else None
    filled = plan.unwindow(y)
    if inside is not None and z0 is not None:
        filled = torch.where(inside, filled, _ifft(_mix(hat, _fft(z, plan)), plan))
    Y = _fft(filled, plan)

    rows = torch.arange(len(y), device=y.device)
    gap = y.new_full((len(y),), math.nan)
    result, last_rho = z, rho_.clone()
    v = z - u
    for k in range(1, max_steps + 1):
        look = k % CHECK == 0 or k == max_steps
        weight = rho_.reshape(lift)
        old = z if look else None
        c = _ridge(eigen, Y - _mix(hat, _fft(v, plan)), weight)
        step = _ifft(_unmix(hat, c), plan)  # x = v + step
        x = v + step if look else None
        w = torch.add(z, u, alpha=1 - relax).add_(step, alpha=relax)
        box = lam / weight
        u = w.clamp(-box, box)  # w minus its soft threshold
        z = w.sub_(u)
        if inside is not None:  # D x = Y - rho c
            estimate = _ifft(Y - weight * c, plan)
            Y = _fft(torch.where(inside, filled, estimate), plan)
        if callback is not None or k == max_steps:
            result = result.index_copy(0, rows, z)
        if callback is not None:
            callback(k, result.reshape(full))
        if look and adapt and k < max_steps:
            factor = _balance(x, z, old, u, limit=1 + (3 * CHECK / k) ** 2)
            rho_, u = rho_ * factor, u / factor.reshape(lift)
        v = z - u
        if look and rtol > 0:
            gap[rows] = _relative_gap(D, y, z, lam)
            stay = ~(gap[rows] <= rtol)
            last_rho[rows] = rho_
            result = result.index_copy(0, rows, z)
            if not stay.all():
                rows, y, Y, z, u, v, rho_ = (t[stay] for t in (rows, y, Y, z, u, v, rho_))
                filled = filled[stay]
                lam = lam[stay] if own else lam
            if len(rows) == 0:
                break
    last_rho[rows] = rho_
    converged = (gap <= rtol) & (rtol > 0)
    if rtol > 0 and not converged.all():
        warnings.warn(
            f"{int((~converged).sum())} of {len(converged)} did not reach rtol = {rtol} in "
            f"{max_steps} steps: the largest relative gap is {float(gap.max()):.1e}",
            NotConvergedWarning,
            stacklevel=3,
        )
    parts = (t.reshape(batch) for t in (gap, converged, last_rho))
    return ConvCoding(result.reshape(full), k, *parts)


def _balance(x: Tensor, z: Tensor, old: Tensor, u: Tensor, limit: float) -> Tensor:
    """Factor of rho, per element: the root of the primal over the dual residual, both relative."""

    def size(t: Tensor) -> Tensor:
        return torch.linalg.vector_norm(t.flatten(1), dim=1)

    primal = size(x - z) * size(u)
    dual = size(z - old) * torch.maximum(size(x), size(z))
    ratio = torch.where((primal > 0) & (dual > 0), primal / dual, 1).nan_to_num(1.0)
    return ratio.sqrt().clamp(1 / limit, limit)


def _relative_gap(D: LinearOperator, y: Tensor, z: Tensor, lam: Tensor) -> Tensor:
    """(len(y)): duality gap over F."""
    F = (y - D(z)).square().flatten(1).sum(1) / 2 + (lam * z).abs().flatten(1).sum(1)
    gap = lasso_gap(D, y, z, lam)
    return torch.where(gap > 0, gap / F, 0.0 * gap)
