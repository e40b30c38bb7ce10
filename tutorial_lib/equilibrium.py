"""A layer whose value is a fixed point z = f(z), and four gradients through it.

>>> W = torch.tensor([[0.5, 0.2], [-0.1, 0.3]], requires_grad=True)
>>> value, info = equilibrium(lambda z: torch.tanh(z @ W + 1), torch.zeros(1, 2), rtol=1e-5)
>>> value.sum().backward()
>>> W.grad.shape, info.backward.reason
(torch.Size([2, 2]), ['converged'])
"""

from typing import Any, Literal, get_args

import torch

from .fixed_points import Equilibrium, Solver, _iterate, _report, _solver
from .states import Map, State, _check_count, _check_share, _Form, _vjp

Gradient = Literal["implicit", "jfb", "phantom", "unrolled"]


def equilibrium(
    f: Map,
    z0: State,
    *,
    solver: Solver | None = None,
    gradient: Gradient = "implicit",
    backward: Solver | None = None,
    k: int | None = None,
    tau: float | int | None = None,
    **options: Any,
) -> Equilibrium:
    """The layer f(z), z the fixed point that `solver` finds, with a gradient for what f depends on.

    With J = df/dz and an incoming gradient v, the parameters and inputs of f receive (df/dp)^T w:

    - implicit: w = J^T w + v, solved by `backward`. Exact up to the two tolerances. Only one
      evaluation of f is kept for it, however many the solver takes.
    - jfb (Jacobian-free): w = v.
    - phantom: the last k steps z <- (1 - tau) z + tau f(z), from the solution on, are recorded and
      differentiated: w = tau sum_{i<k} (tau J^T + (1 - tau) I)^i v at a fixed point.
    - unrolled: all of Picard's steps are recorded; the exact gradient of what was computed. The
      only one that has a gradient for z0.

    Args:
        f, z0: as in `fixed_point`. f is evaluated at the solution once more with the gradient
            recorded (k times for phantom, never for unrolled): `value` is its result.
        solver: or its options by keyword, as in `Solver`.
        gradient: "implicit", "jfb", "phantom" or "unrolled".
        backward: of implicit; None: as `solver`.
        k, tau: of phantom, at least 1 and in (0, 1]; None: 5 and 0.9.

    Returns:
        `Equilibrium`; its `info` describes z, and `info.backward` the solve for w, once it has
        run.

    Raises:
        ValueError, TypeError, FloatingPointError: as `fixed_point`; ValueError also for options
            that the gradient does not have, and for unrolled with another method than picard.
        RuntimeError: at a second derivative of implicit, which it does not have.

    Warns:
        NotConvergedWarning: once for either solve.

    References: S. Bai, J. Z. Kolter, V. Koltun, Deep equilibrium models, NeurIPS 2019; S. Wu Fung
    et al., JFB, AAAI 2022; Z. Geng et al., On training implicit models, NeurIPS 2021.

    >>> a = torch.tensor(0.5, requires_grad=True)
    >>> value, info = equilibrium(lambda z: a * z + 1, torch.zeros(1, 1))
    >>> value.sum().backward()  # z = 1 / (1 - a)
    >>> round(a.grad.item(), 2), info.backward.reason
    (4.0, ['converged'])
    """
    solver = _solver(solver, options)
    if gradient not in get_args(Gradient):
        allowed = ", ".join(get_args(Gradient))
        raise ValueError(f"unknown gradient {gradient!r}: allowed are {allowed}")
    if gradient != "implicit" and backward is not None:
        raise ValueError(f"backward is an option of gradient 'implicit', not of {gradient!r}")
    if gradient != "phantom" and (k, tau) != (None, None):
        raise ValueError(f"k and tau are options of gradient 'phantom', not of {gradient!r}")
    if gradient == "unrolled" and solver.method != "picard":
        raise ValueError(f"gradient 'unrolled' takes the method 'picard', not {solver.method!r}")
    k, tau = 5 if k is None else k, 0.9 if tau is None else tau
    _check_count("k", k)
    _check_share("tau", tau)

    form = _Form(z0)
    F, z = form.flat(f), form.pack(z0)
    if gradient == "unrolled":
        _, value, info = _iterate(F, z, solver)
        _report(info, solver, "equilibrium")
        return Equilibrium(form.unpack(value), info)
    with torch.no_grad():
        z, _, info = _iterate(F, z, solver)
    _report(info, solver, "equilibrium")
    if gradient == "phantom":
        for _ in range(k):
            fz = F(z)
            z = fz if tau == 1 else torch.lerp(z, fz, tau)
        return Equilibrium(form.unpack(z), info)
    if gradient == "implicit" and torch.is_grad_enabled():
        z.requires_grad_()
    value = F(z)
    if gradient == "implicit" and value.requires_grad:
        value = _Implicit.apply(value, [z], backward or solver, info)
    return Equilibrium(form.unpack(value), info)


class _Implicit(torch.autograd.Function):
    """The identity; its backward turns v into w = J^T w + v, J = d value / dz."""

    @staticmethod
    def forward(ctx, value, held, solver, info):
        ctx.value, ctx.held, ctx.solver, ctx.info = value, held, solver, info
        return value.view_as(value)

    @staticmethod
    def backward(ctx, v):
        if torch.is_grad_enabled():
            raise RuntimeError("an implicit gradient has no second derivative (create_graph=True)")
        (z,) = ctx.held

        def f(w):
            return v + _vjp(ctx.value, z, w)

        _, w, ctx.info.backward = _iterate(f, v, ctx.solver)  # one application closer
        _report(ctx.info.backward, ctx.solver, "backward")
        return w, None, None, None
