"""Proximal gradient solvers for the lasso, ISTA and FISTA, with a certificate of their answer.

All of them minimise exactly F(x) = 1/2 ||y - A x||^2 + ||lam * x||_1, for each batch element.
"""

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .operators import LinearOperator, NotConvergedWarning, _norm
from .prox import Weight, _check_values, _check_weight

Callback = Callable[[int, Tensor], object]
Momentum = Literal["nesterov", "chambolle-dossal"]
MOMENTA: tuple[str, ...] = ("nesterov", "chambolle-dossal")


class Solution(NamedTuple):
    """What an iteration returns.

    Args:
        value: the last iterate, (*batch, *shape_in).
        steps: steps taken, those of the slowest batch element.
        history: (steps, *batch), the relative length of each step; NaN after an element has
            stopped. Empty, (0, *batch), where rtol = 0.
        converged: (*batch), whether an element met rtol; all False where rtol = 0.
    """

    value: Float[Tensor, "..."]
    steps: int
    history: Float[Tensor, "..."]
    converged: Bool[Tensor, "..."]


def gradient_step(
    x: Float[Tensor, "..."], gradient: Float[Tensor, "..."], *, step: Weight
) -> Float[Tensor, "..."]:
    """x - step * gradient, the argmin_u <gradient, u> + 1/(2 step) ||u - x||^2.

    Args:
        x, gradient: of one shape.
        step: positive, a number or a tensor; nothing is checked, the step of an inner loop.

    >>> gradient_step(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]), step=0.5)
    tensor([0., 2.])
    """
    if isinstance(step, Tensor):
        return torch.addcmul(x, gradient, -step)
    return torch.sub(x, gradient, alpha=step)


def ista(
    A: LinearOperator,
    y: Float[Tensor, "..."],
    lam: Weight,
    *,
    step: Weight | None = None,
    x0: Float[Tensor, "..."] | None = None,
    max_steps: int = 1000,
    rtol: float | int = 1e-4,
    callback: Callback | None = None,
) -> Solution:
    """argmin_x 1/2 ||y - A x||^2 + ||lam * x||_1 by x <- S_{step lam}(x - step A^T (A x - y)).

    With step = 1/||A||^2 the objective never rises and
    F(x_k) - F* <= ||A||^2 ||x_0 - x*||^2 / (2k); any step below 2/||A||^2 converges, any above can
    diverge. The number of steps fixed
    (rtol = 0), the result is differentiable in y, lam, step, x0 and what A holds.

    Args:
        A: shape_in -> shape_out.
        y: (*batch, *shape_out).
        lam: nonnegative: a number, or a tensor that broadcasts against (*batch, *shape_in), one
            weight for each entry. Entries of weight 0 are not penalised.
        step: positive, one for all; None takes slightly less than 1/||A||^2, from
            `operators.operator_norm`.
        x0: start, (*batch, *shape_in); None starts from zero.
        max_steps: at least 1.
        rtol: an element stops, and keeps its value, when ||x_{k+1} - x_k|| <= rtol ||x_{k+1}||.
            0 takes exactly max_steps, without measuring anything.
        callback: called after each step with the step, from 1, and x (*batch, *shape_in).

    Returns:
        `Solution`. Each batch element is solved as if it were alone.

    Raises:
        ValueError: NaN, integer or wrongly shaped y, lam or x0; lam < 0, step <= 0, max_steps < 1,
            rtol < 0.

    Warns:
        NotConvergedWarning: once, if rtol > 0 and an element did not meet it.

    Reference: I. Daubechies, M. Defrise, C. De Mol, An iterative thresholding algorithm for linear
    inverse problems with a sparsity constraint, Comm. Pure Appl. Math., 2004.

    >>> A = LinearOperator(lambda x: x, lambda y: y, (3,), (3,))
    >>> ista(A, torch.tensor([3.0, 0.5, -2.0]), 1.0, step=1.0).value
    tensor([ 2.,  0., -1.])
    """
    return _proximal_gradient(A, y, lam, step, x0, max_steps, rtol, callback, None, False)


def fista(
    A: LinearOperator,
    y: Float[Tensor, "..."],
    lam: Weight,
    *,
    step: Weight | None = None,
    x0: Float[Tensor, "..."] | None = None,
    max_steps: int = 1000,
    rtol: float | int = 1e-4,
    momentum: Momentum = "nesterov",
    a: float | int = 3.0,
    restart: bool = True,
    callback: Callback | None = None,
) -> Solution:
    """argmin_x 1/2 ||y - A x||^2 + ||lam * x||_1 by ISTA steps from an extrapolated point z.

    x_{k+1} = S_{step lam}(z_k - step A^T (A z_k - y)),
    z_{k+1} = x_{k+1} + (t_k - 1)/t_{k+1} (x_{k+1} - x_k), t_1 = 1.

    With step <= 1/||A||^2 and without restart F(x_k) - F* <= 2 ||A||^2 ||x_0 - x*||^2 / (k+1)^2 for
    "nesterov". The objective may rise on the way.

    Args:
        momentum: "nesterov", t_{k+1} = (1 + sqrt(1 + 4 t_k^2))/2, or "chambolle-dossal",
            t_k = (k + a - 1)/a, for which the iterates themselves are known to converge.
        a: of "chambolle-dossal", above 2: the larger, the more damped.
        restart: set t_k to 1 wherever the step turns against the momentum,
            <z_k - x_{k+1}, x_{k+1} - x_k> > 0, for each batch element on its own.
        The others: as in `ista`, but that the length of a step is ||x_{k+1} - z_k||, which is
            zero at a minimiser only.

    Returns, raises, warns:
        as `ista`; ValueError also for an unknown momentum and a <= 2.

    References: A. Beck, M. Teboulle, SIAM J. Imaging Sci., 2009; A. Chambolle, C. Dossal, J. Optim.
    Theory Appl., 2015; B. O'Donoghue, E. Candes, Found. Comput. Math., 2015.

    >>> A = LinearOperator(lambda x: 2 * x, lambda y: 2 * y, (2,), (2,))
    >>> fista(A, torch.tensor([4.0, 0.4]), 1.0).value
    tensor([1.7500, 0.0000])
    """
    if momentum not in MOMENTA:
        raise ValueError(f"unknown momentum {momentum!r}: allowed are {', '.join(MOMENTA)}")
    if not a > 2:
        raise ValueError(f"a = {a}: a number above 2 is needed")

    t, betas = 1.0, []
    for _ in range(max_steps if isinstance(max_steps, int) else 0):
        following = (1 + math.sqrt(1 + 4 * t * t)) / 2 if momentum == "nesterov" else t + 1 / a
        betas.append((t - 1) / following)
        t = following
    return _proximal_gradient(A, y, lam, step, x0, max_steps, rtol, callback, betas, restart)


def _proximal_gradient(
    A: LinearOperator,
    y: Tensor,
    lam: Weight,
    step: Weight | None,
    x0: Tensor | None,
    max_steps: int,
    rtol: float | int,
    callback: Callback | None,
    betas: list[float] | None,
    restart: bool,
) -> Solution:
    """The one loop: ISTA without `betas`, FISTA with its factors (t_k - 1)/t_{k+1}."""
    full = _check(A, y, lam, x0)
    if step is None:
        tolerance = 0.02
        norm = _norm(A, y.dtype, y.device, tolerance).value
        step = (1 - tolerance) ** 2 / norm**2 if norm > 0 else 1.0
    number = torch.as_tensor(step).detach()
    if number.numel() != 1 or not 0 < float(number) < math.inf:
        raise ValueError(f"step = {step}: a positive number is needed")
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps = {max_steps}: a whole number of at least 1 is needed")
    if not rtol >= 0:
        raise ValueError(f"rtol = {rtol}: it must be nonnegative")

    # One batch axis from here on. Rows that have converged leave; `rows` says who is still here.
    b = A.adjoint(y)
    x = torch.zeros_like(b) if x0 is None else x0
    batch = full[: len(full) - len(A.shape_in)]
    b, x = (u.expand(full).reshape(-1, *A.shape_in) for u in (b, x))
    box = (-step * lam, step * lam)  # S(v) = v - the projection of v on this box
    own = isinstance(lam, Tensor) and lam.ndim > len(A.shape_in)  # a threshold of each row's own
    if own:
        box = tuple(u.expand(full).reshape(-1, *A.shape_in) for u in box)
    axes = tuple(range(1, x.ndim))
    rows = torch.arange(len(x), device=x.device)
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    history: list[Tensor] = []
    result = x
    z = x
    table = x.new_tensor(betas or [])
    age = torch.zeros_like(rows)  # steps of each row since its last restart

    for k in range(1, max_steps + 1):
        old = x
        v = gradient_step(z, A.gram(z) - b, step=step)
        x = v - v.clamp(*box)
        if rtol > 0:
            with torch.no_grad():
                length = torch.linalg.vector_norm(x - z, dim=axes)
                size = torch.linalg.vector_norm(x, dim=axes)
                done = (length <= rtol * size) & size.isfinite()  # not where it diverged
                relative = length / size.clamp(min=torch.finfo(x.dtype).tiny)
                nothing = relative.new_full(converged.shape, math.nan)
                history.append(nothing.index_copy(0, rows, relative))
        if betas is None:
            z = x
        else:
            moved, beta = x - old, betas[k - 1]
            if restart:
                turned = torch.einsum("bi,bi->b", (z - x).flatten(1), moved.flatten(1)) > 0
                age = torch.where(turned, 0, age)
                beta, age = table[age].reshape(-1, *(1 for _ in axes)), age + 1
            z = torch.addcmul(x, moved, beta) if restart else torch.add(x, moved, alpha=beta)
        leaving = rtol > 0 and bool(done.any())
        if leaving or callback is not None or k == max_steps:
            result = result.index_copy(0, rows, x)
        if callback is not None:
            callback(k, result.reshape(full))
        if leaving:
            converged[rows] = done
            stay = ~done
            rows, age, x, z, b = (u[stay] for u in (rows, age, x, z, b))
            box = tuple(u[stay] for u in box) if own else box
            if len(rows) == 0:
                break

    if rtol > 0 and len(rows) > 0:
        warnings.warn(
            f"{len(rows)} of {len(converged)} did not reach rtol = {rtol} in {max_steps} steps: "
            f"the last had relative length {float(history[-1][rows].max()):.1e}",
            NotConvergedWarning,
            stacklevel=3,
        )
    trace = torch.stack(history) if history else x.new_empty(0, len(converged))
    return Solution(result.reshape(full), k, trace.reshape(-1, *batch), converged.reshape(batch))


def lasso_objective(
    A: LinearOperator, y: Float[Tensor, "..."], x: Float[Tensor, "..."], lam: Weight
) -> Float[Tensor, "..."]:
    """F(x) = 1/2 ||y - A x||^2 + ||lam * x||_1.

    Args:
        A, y, lam: as in `ista`.
        x: (*batch, *shape_in).

    Returns:
        (*batch), differentiable.

    Raises:
        ValueError: NaN, integers, shapes that do not fit, lam < 0.

    >>> A = LinearOperator(lambda x: x, lambda y: y, (2,), (2,))
    >>> lasso_objective(A, torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0]), 1.0)
    tensor(2.5000)
    """
    _check(A, y, lam, x)
    return _sum((y - A(x)).square(), A.shape_out) / 2 + _sum((lam * x).abs(), A.shape_in)


@torch.no_grad()
def lasso_gap(
    A: LinearOperator, y: Float[Tensor, "..."], x: Float[Tensor, "..."], lam: Weight
) -> Float[Tensor, "..."]:
    """A bound of how much lower F can go: lasso_objective(x) - min F <= gap, 0 at a minimiser.

    For every u with |A^T u| <= lam, D(u) = <y, u> - 1/2 ||u||^2 <= min F. Such a u is made from
    the residual r = y - A x: first r is projected so that its correlation with the columns of
    weight 0 vanishes (conjugate gradients), then scaled, by the best factor that |A^T u| <= lam
    allows. With c = A^T u the difference F(x) - D(u) is a sum of nonnegative terms,

        gap = 1/2 ||r - u||^2 + sum_i (lam_i |x_i| - c_i x_i),

    and computed as that sum: nothing cancels, so that small gaps are exact in float32 too.

    Args:
        A, y, lam: as in `ista`.
        x: (*batch, *shape_in).

    Returns:
        (*batch).

    Raises:
        ValueError: as `lasso_objective`.

    Reference: S.-J. Kim, K. Koh, M. Lustig, S. Boyd, D. Gorinevsky, An interior-point method for
    large-scale l1-regularized least squares, IEEE J. Sel. Topics Signal Process., 2007.

    >>> A = LinearOperator(lambda x: x, lambda y: y, (2,), (2,))
    >>> lasso_gap(A, torch.tensor([3.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 1.0)
    tensor([0., 2.])
    """
    _check(A, y, lam, x)
    lam = torch.as_tensor(lam, dtype=x.dtype, device=x.device)
    residual = y - A(x)
    free = lam == 0
    u = _decorrelate(A, residual, free.to(x.dtype), y) if free.any() else residual
    c = torch.where(free, 0, A.adjoint(u))
    largest = torch.where(free, math.inf, lam / c.abs())  # factor that each entry allows
    largest = largest.broadcast_to(c.shape).nan_to_num(math.inf, posinf=math.inf)
    largest = largest.flatten(-len(A.shape_in)).amin(-1)
    best = (_sum(residual * u, A.shape_out) + _sum(x * c, A.shape_in)) / _sum(u * u, A.shape_out)
    scale = best.nan_to_num(0.0).clamp(-largest, largest)
    fit = _sum((residual - _lift(scale, A.shape_out) * u).square(), A.shape_out) / 2
    return fit + _sum(lam * x.abs() - _lift(scale, A.shape_in) * c * x, A.shape_in)


def _decorrelate(A: LinearOperator, r: Tensor, free: Tensor, y: Tensor) -> Tensor:
    """r minus its projection on the range of A(free * .), by conjugate gradients."""
    shape = A.shape_in
    g = free * A.adjoint(r)
    x, p, rho = torch.zeros_like(g), g, _sum(g * g, shape)
    small = torch.finfo(r.dtype).eps ** 2 * _sum(A.adjoint(y).square(), shape)
    for _ in range(1000):
        if (rho <= small).all():
            break
        q = free * A.gram(p)
        curvature = _sum(p * q, shape)
        alpha = torch.where(rho > small, rho / curvature, 0)
        x, g = x + _lift(alpha, shape) * p, g - _lift(alpha, shape) * q
        rho, before = _sum(g * g, shape), rho
        p = g + _lift(torch.where(before > 0, rho / before, 0), shape) * p
    else:
        warnings.warn(
            "lasso_gap: the projection of the residual did not converge, the gap is approximate",
            NotConvergedWarning,
            stacklevel=4,
        )
    return r - A(x)


def _sum(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Over the trailing axes of that shape."""
    return x.flatten(-len(shape)).sum(-1)


def _lift(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(*batch) -> (*batch, 1, ..., 1)."""
    return x.reshape(*x.shape, *(1 for _ in shape))


def _check(A: LinearOperator, y: Tensor, lam: Weight, x: Tensor | None) -> torch.Size:
    """Refuse what does not fit together; return the shape (*batch, *shape_in) of the unknown."""
    if not isinstance(A, LinearOperator):
        raise ValueError(f"A is a {type(A).__name__}: wrap it, for instance by operators.matrix")
    if A.device is not None and y.device != A.device:
        raise ValueError(f"y is on {y.device}, the operator on {A.device}")
    tensors = {"y": y, "x": x, "lam": lam}
    tensors = {name: u for name, u in tensors.items() if isinstance(u, Tensor)}
    for name, u in tensors.items():
        if (u.dtype, u.device) != (y.dtype, y.device):
            raise ValueError(
                f"{name} has dtype {u.dtype} on {u.device}, y has {y.dtype} on {y.device}"
            )
        _check_values(u, name)
    _check_weight(lam, None, "lam")
    n_in, n_out = len(A.shape_in), len(A.shape_out)
    try:
        if y.shape[-n_out:] != A.shape_out or (x is not None and x.shape[-n_in:] != A.shape_in):
            raise RuntimeError
        shapes = {name: u.shape for name, u in tensors.items()}
        shapes["y"] = (*y.shape[:-n_out], *A.shape_in)
        full = torch.broadcast_shapes(*shapes.values())
        if full[-n_in:] != A.shape_in:
            raise RuntimeError
    except RuntimeError:
        got = ", ".join(f"{name} {tuple(u.shape)}" for name, u in tensors.items())
        raise ValueError(
            f"shapes {got} do not fit an operator from {A.shape_in} to {A.shape_out}"
        ) from None
    return full
