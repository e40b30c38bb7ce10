"""Fixed points z = f(z) by Picard, Anderson and Broyden.

A state is one tensor, or a tuple of tensors of one dtype, whose first axes count the samples. Each
sample has its own residual r(z) = ||f(z) - z||, over all its tensors together, and is solved as if
it were alone, provided that f treats samples apart.

>>> W = torch.tensor([[0.5, 0.2], [-0.1, 0.3]])
>>> value, info = fixed_point(lambda z: torch.tanh(z @ W + 1), torch.zeros(1, 2), rtol=1e-5)
>>> torch.allclose(value, torch.tanh(value @ W + 1), rtol=1e-4), info.reason
(True, ['converged'])
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .acceleration import _anderson, _broyden, _picard
from .operators import NotConvergedWarning
from .states import Map, State, _check_count, _check_share, _Form, _norm, _refuse_nan

Method = Literal["picard", "anderson", "broyden"]
ESCAPE = 1e6  # a residual this many times the first one: diverged


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a fixed point is looked for. A frozen record; misspelt options are a TypeError.

    With g(z) = f(z) - z the methods step by

    - picard: z <- z + share g(z);
    - anderson: z <- sum_i a_i (z_i + share g(z_i)) over the last `memory` iterates, where the
      weights a, of sum one, minimise ||sum_i a_i g(z_i)||^2 + ridge sum_i a_i^2 ||g(z_i)||^2;
    - broyden: z <- z - B g(z), B a rank-`memory` correction of -share I which Broyden's "good"
      formula keeps up to date; when the memory is full it starts anew.

    Each step is one evaluation of f. A sample stops, and keeps its state, as soon as
    ||f(z) - z|| <= atol + rtol ||f(z)||: z is the state at which f was evaluated, and share has no
    part in it.

    Args:
        method: "picard", "anderson" or "broyden".
        rtol, atol: nonnegative. Both 0: take exactly `max_steps`, and call nothing converged.
        max_steps: evaluations of f at most, at least 1.
        memory: past iterates that are kept, at least 1: 2 x memory states.
        ridge: nonnegative, relative to the diagonal of the Gram matrix of the g(z_i); None: 10
            times the rounding unit of the states' dtype.
        share: in (0, 1], of a plain step; below 1 it is damped.

    Raises:
        ValueError: a value outside these ranges.

    >>> Solver(rtol=-1.0)
    Traceback (most recent call last):
    ValueError: rtol = -1.0: a nonnegative number is needed
    """

    method: Method = "anderson"
    rtol: float | int = 1e-4
    atol: float | int = 0.0
    max_steps: int = 100
    memory: int = 5
    ridge: float | int | None = None
    share: float | int = 1.0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            allowed = ", ".join(get_args(Method))
            raise ValueError(f"unknown method {self.method!r}: allowed are {allowed}")
        for name in ("rtol", "atol", "ridge"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: a nonnegative number is needed")
        for name in ("max_steps", "memory"):
            _check_count(name, getattr(self, name))
        _check_share("share", self.share)


@dataclass
class Info:
    """What a solver did. Residuals are relative, ||f(z) - z|| / ||f(z)||, one for each sample.

    Args:
        residual: (b,), of the state that is returned: the one that met the tolerance, or the best.
        distance: (b,), the same without the division: ||f(z) - z||.
        history: (evaluations, b), at each evaluation; NaN after a sample has stopped.
        steps: (b,), evaluations until a sample stopped.
        evaluations: of f, in all.
        converged: (b,).
        reason: of each sample: "converged", "max_steps" or "diverged".
        backward: of the linear solve of an implicit gradient, once `backward()` has run.
    """

    residual: Float[Tensor, " b"]
    distance: Float[Tensor, " b"]
    history: Float[Tensor, "evaluations b"]
    steps: Int[Tensor, " b"]
    evaluations: int
    converged: Bool[Tensor, " b"]
    reason: list[str]
    backward: "Info | None" = None


class Equilibrium(NamedTuple):
    """The state, in the form of the start, and what the solver did."""

    value: Any
    info: Info


def fixed_point(f: Map, z0: State, *, solver: Solver | None = None, **options: Any) -> Equilibrium:
    """z with z = f(z), from the start z0, without a gradient.

    For a map with ||f(u) - f(v)|| <= L ||u - v||, L < 1, the returned z satisfies
    ||z - z*|| <= ||f(z) - z|| / (1 - L) = info.distance / (1 - L).

    Args:
        f: from a state to a state of the same form, each sample on its own.
        z0: (b, ...), or a tuple of such tensors.
        solver: the options; or give them by keyword, as in `Solver`.

    Returns:
        `Equilibrium`: for a sample that did not converge, the state of smallest residual.

    Raises:
        ValueError: unequal forms, NaN in z0, an option out of its range.
        TypeError: an unknown option.
        FloatingPointError: f makes NaN out of finite numbers.

    Warns:
        NotConvergedWarning: once, if a sample did not converge although a tolerance was given.

    References: D. G. Anderson, J. ACM, 1965; H. Walker, P. Ni, SIAM J. Numer. Anal., 2011;
    C. G. Broyden, Math. Comp., 1965.

    >>> z, info = fixed_point(torch.cos, torch.ones(1, 1), rtol=1e-6)
    >>> round(z.item(), 4), info.evaluations < 10
    (0.7391, True)
    """
    solver = _solver(solver, options)
    form = _Form(z0)
    with torch.no_grad():
        z, _, info = _iterate(form.flat(f), form.pack(z0), solver)
    _report(info, solver, "fixed_point")
    return Equilibrium(form.unpack(z), info)


def _solver(solver: Solver | None, options: dict[str, Any]) -> Solver:
    if solver is None:
        return Solver(**options)
    if options:
        raise ValueError(f"{', '.join(options)} beside a solver: give the options to the Solver")
    return solver


def _stepper(z: Tensor, solver: Solver) -> Callable[..., Tensor]:
    """How the solver goes on from z, f(z) and what it remembers."""
    if solver.method == "picard":
        return _picard(solver.share)
    if solver.method == "anderson":
        return _anderson(z, solver.memory, solver.share, solver.ridge)
    return _broyden(z, solver.memory, solver.share)


def _iterate(F: Map, z: Tensor, solver: Solver) -> tuple[Tensor, Tensor, Info]:
    """z (b, n) -> the state, F of it, and the record. Differentiable with Picard's steps."""
    rtol, atol = solver.rtol, solver.atol
    free = rtol == atol == 0  # a fixed number of steps
    step = _stepper(z, solver)
    running = torch.ones(len(z), dtype=torch.bool, device=z.device)
    steps = torch.full_like(running, solver.max_steps, dtype=torch.int64)
    converged = diverged = ~running
    everyone, history = True, []

    for count in range(1, solver.max_steps + 1):
        fz = F(z)
        g = fz - z
        distance, size = _norm(g.detach()), _norm(fz.detach())
        relative = distance / size.clamp(min=torch.finfo(size.dtype).tiny)
        history.append(relative)
        if count == 1:
            _refuse_nan(z, fz, ~distance.isfinite(), count)
            best, value, least, closest, most = z, fz, distance, relative, ESCAPE * distance
        stopped = ~running if free else distance <= atol + rtol * size
        better = running if free else distance <= least if rtol == 0 else relative <= closest
        better = better | stopped
        sane = distance <= most
        if not everyone:  # those that have converged stay where they are
            better, stopped = better & running | ~(running | diverged), stopped & running
        if not sane.all():
            escaped = running & ~sane
            _refuse_nan(z, fz, escaped, count)
            diverged = diverged | escaped
            better, stopped = better & ~escaped, stopped | escaped
        improved = bool(better.all())
        if improved:
            best, value, least, closest = z, fz, distance, relative
        elif better.any():
            best, value = (torch.where(better[:, None], *u) for u in ((z, best), (fz, value)))
            least, closest = (
                torch.where(better, distance, least),
                torch.where(better, relative, closest),
            )
        if stopped.any():
            steps = steps.masked_fill(stopped, count)
            running = running & ~stopped
            everyone = False
            if not running.any():
                break
        if count < solver.max_steps:
            following = step(count - 1, z, fz, g, distance, improved and not free)
            z = following if everyone else torch.where(running[:, None], following, z)

    converged = ~(running | diverged)
    words = ("max_steps", "converged", "diverged")
    reason = [words[i] for i in (converged + 2 * diverged.long()).tolist()]
    late = torch.arange(count, device=z.device)[:, None] >= steps
    trace = torch.stack(history).masked_fill(late, math.nan)
    return best, value, Info(closest, least, trace, steps, count, converged, reason)


def _report(info: Info, solver: Solver, where: str) -> None:
    if solver.rtol == solver.atol == 0 or info.converged.all():
        return
    missed = len(info.reason) - int(info.converged.sum())
    away = info.reason.count("diverged")
    warnings.warn(
        f"{where}: {missed} of {len(info.reason)} did not reach rtol = {solver.rtol}, "
        f"atol = {solver.atol} in {info.evaluations} evaluations"
        + (f", {away} of them diverged" if away else "")
        + f": the largest relative residual is {float(info.residual.max()):.1e}",
        NotConvergedWarning,
        stacklevel=3,
    )
