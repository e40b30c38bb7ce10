"""Total variation: the penalty that keeps edges, and restoration with it."""

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from .operators import LinearOperator, NotConvergedWarning
from .plug_and_play import _begin, _inverse
from .solvers import Solution


def differences(x: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 2 h w"]:
    """D x: to the next pixel down, and to the right; zero across the border.

    >>> differences(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    tensor([[[ 1., -1.],
             [ 0.,  0.]],
    <BLANKLINE>
            [[ 2.,  0.],
             [ 0.,  0.]]])
    """
    g = x.new_zeros(*x.shape[:-2], 2, *x.shape[-2:])
    g[..., 0, :-1, :], g[..., 1, :, :-1] = neighbour_differences(x)
    return g


def neighbour_differences(
    x: Float[Tensor, "*batch h w"],
) -> tuple[Float[Tensor, "*batch h1 w"], Float[Tensor, "*batch h w1"]]:
    """From each pixel to the next one, down and to the right, where there is one."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def differences_adjoint(q: Float[Tensor, "*batch 2 h w"]) -> Float[Tensor, "*batch h w"]:
    """D^T q: <D x, q> = <x, D^T q>."""
    down, right = q.unbind(-3)
    x = torch.zeros_like(down)
    x[..., :-1, :] -= down[..., :-1, :]
    x[..., 1:, :] += down[..., :-1, :]
    x[..., :, :-1] -= right[..., :, :-1]
    x[..., :, 1:] += right[..., :, :-1]
    return x


def total_variation(x: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch"]:
    """TV(x) = sum of the lengths of the vectors (D x)[i, j], the isotropic total variation.

    Reference: L. I. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal
    algorithms, Physica D 60, 1992.

    >>> total_variation(torch.tensor([[0.0, 3.0], [4.0, 3.0]]))
    tensor(6.)
    """
    return torch.linalg.vector_norm(differences(x), dim=-3).sum((-1, -2))


def restore_tv(
    y: Float[Tensor, "*batch h w"],
    H: LinearOperator,
    lam: float | int,
    *,
    step: float | int = 30.0,
    max_steps: int = 500,
    rtol: float = 1e-4,
) -> Solution:
    """argmin_x 1/2 ||y - H x||^2 + lam TV(x), by the primal-dual method of Chambolle and Pock.

    With lam TV(x) = max_{|q[i, j]| <= lam} <q, D x> it is a saddle point; from x_0 = y, q_0 = 0

        q <- projection of q + D (2 x_k - x_{k-1}) / (8 step) on vectors of length at most lam,
        x_{k+1} = argmin_x 1/2 ||y - H x||^2 + 1/(2 step) ||x - (x_k - step D^T q)||^2,

    which converges for every step, since ||D||^2 <= 8. The second line is `data_step`.

    Args:
        y: (*batch, h, w).
        H: (h, w) -> (h, w).
        lam: at least 0.
        step: positive. It changes the speed alone; some 30 suits images in [0, 1], a blur of gain
            1, and lam about 1e-3.
        max_steps: at least 1.
        rtol: stop when ||x_{k+1} - x_k|| <= rtol ||x_{k+1}|| for all batch elements.

    Returns:
        `solvers.Solution`; history is that relative change.

    Raises:
        ValueError: NaN, integers, shapes that do not fit, numbers outside their ranges.

    Warns:
        NotConvergedWarning: once, if an element did not meet rtol.

    References: L. I. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal
    algorithms, Physica D 60, 1992; A. Chambolle, T. Pock, A first-order primal-dual algorithm for
    convex problems with applications to imaging, J. Math. Imaging Vis. 40, 2011.

    >>> H = LinearOperator(lambda x: x, lambda y: y, (1, 2), (1, 2))
    >>> restore_tv(torch.tensor([[0.0, 1.0]]), H, 0.2, step=1.0, rtol=1e-6).value.round(decimals=3)
    tensor([[0.2000, 0.8000]])
    """
    if not (0 <= lam < math.inf and 0 < step < math.inf and rtol > 0):
        raise ValueError(
            f"lam = {lam}, step = {step}, rtol = {rtol}: expected lam >= 0, step > 0, rtol > 0"
        )
    b, x, batch = _begin(y, H, None, max_steps)
    solve, weight = _inverse(H, b), b.new_full(b.shape[:1], 1 / step)
    ahead, q, history = x, torch.zeros_like(differences(x)), []
    for _ in range(max_steps):
        q = q + differences(ahead) / (8 * step)
        length = torch.linalg.vector_norm(q, dim=-3, keepdim=True)
        q = torch.where(length > lam, q * (lam / length), q)
        old, x = x, solve(b + x / step - differences_adjoint(q), weight)
        ahead = 2 * x - old
        history.append((x - old).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1))
        if bool((history[-1] <= rtol).all()):
            break
    converged = history[-1] <= rtol
    if not bool(converged.all()):
        warnings.warn(
            f"restore_tv: {int((~converged).sum())} of {len(x)} did not reach rtol = {rtol} in "
            f"{max_steps} steps: the last change was {float(history[-1].max()):.1e}",
            NotConvergedWarning,
            stacklevel=2,
        )
    trace = torch.stack(history).reshape(-1, *batch)
    return Solution(x.reshape(y.shape), len(history), trace, converged.reshape(batch))
