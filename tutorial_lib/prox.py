"""Proximal maps. Each docstring is the minimisation that its function solves exactly.

In all of them the weight is the product of step and regularisation, `prox_l1(v, step * lam)`: a
float, or a tensor of them that broadcasts against v. `v` has any shape, batch axes included.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Weight = float | int | Tensor


def prox_l1(v: Float[Tensor, "*shape"], weight: Weight) -> Float[Tensor, "*shape"]:
    """argmin_x 1/2 ||x - v||^2 + ||weight * x||_1: the soft threshold.

    Computed as v minus its projection on the box [-weight, weight] (the Moreau decomposition).

    Args:
        v: any shape.
        weight: nonnegative; a tensor weighs each entry by its own.

    Returns:
        x, of the shape of v.

    Raises:
        ValueError: integer or NaN v; negative or NaN weight; a weight that does not broadcast.

    Reference: N. Parikh and S. Boyd, Proximal Algorithms, 2014, section 6.5.2.

    >>> prox_l1(torch.tensor([3.0, -0.5, -2.0]), 1.0)
    tensor([ 2.,  0., -1.])
    """
    _check(v, weight)
    return v - v.clamp(-weight, weight)


def prox_l0(v: Float[Tensor, "*shape"], weight: Weight) -> Float[Tensor, "*shape"]:
    """argmin_x 1/2 ||x - v||^2 + sum_i weight_i [x_i != 0]: the hard threshold at sqrt(2 weight).

    The objective is not convex; where |v_i| = sqrt(2 weight_i) both 0 and v_i are minimisers and
    0 is returned. Arguments, errors: see `prox_l1`.

    Reference: N. Parikh and S. Boyd, Proximal Algorithms, 2014, section 6.5.

    >>> prox_l0(torch.tensor([3.0, -1.9, 2.1]), 2.0)
    tensor([3.0000, 0.0000, 2.1000])
    """
    _check(v, weight)
    return torch.where(v.square() <= 2 * weight, 0, v)


def prox_group(
    v: Float[Tensor, "*shape"], weight: Weight, *, dim: int | tuple[int, ...] = -1
) -> Float[Tensor, "*shape"]:
    """argmin_x 1/2 ||x - v||^2 + sum_g weight_g ||x_g||_2: each group shrinks as one vector.

    Args:
        v: any shape.
        weight: nonnegative; a tensor broadcasts against v with the axes `dim` of size 1.
        dim: the axis, or axes, along which the members of a group lie.

    Returns:
        (1 - weight / ||v_g||)_+ v_g for each group g.

    Raises:
        ValueError: as `prox_l1`, and a weight that varies within a group.

    Reference: M. Yuan and Y. Lin, Model selection and estimation with grouped variables, 2006.

    >>> prox_group(torch.tensor([[3.0, 4.0], [0.6, 0.8]]), 2.5)
    tensor([[1.5000, 2.0000],
            [0.0000, 0.0000]])
    """
    _check_values(v, "v")
    norm = torch.linalg.vector_norm(v, dim=dim, keepdim=True)
    _check_weight(weight, norm.shape, "weight")
    return v * ((norm - weight).clamp(min=0) / norm.clamp(min=torch.finfo(v.dtype).tiny))


def prox_l2_squared(v: Float[Tensor, "*shape"], weight: Weight) -> Float[Tensor, "*shape"]:
    """argmin_x 1/2 ||x - v||^2 + 1/2 sum_i weight_i x_i^2 = v / (1 + weight).

    Arguments, errors: see `prox_l1`.

    >>> prox_l2_squared(torch.tensor([3.0, -1.0]), 1.0)
    tensor([ 1.5000, -0.5000])
    """
    _check(v, weight)
    return v / (1 + weight)


def prox_nonneg_l1(v: Float[Tensor, "*shape"], weight: Weight) -> Float[Tensor, "*shape"]:
    """argmin_{x >= 0} 1/2 ||x - v||^2 + sum_i weight_i x_i = (v - weight)_+: a shifted ReLU.

    Arguments, errors: see `prox_l1`.

    >>> prox_nonneg_l1(torch.tensor([3.0, 0.5, -2.0]), 1.0)
    tensor([2., 0., 0.])
    """
    _check(v, weight)
    return (v - weight).clamp(min=0)


def project_box(
    v: Float[Tensor, "*shape"], *, low: float | int = 0.0, high: float | int = 1.0
) -> Float[Tensor, "*shape"]:
    """argmin_{low <= x <= high} 1/2 ||x - v||^2.

    Args:
        v: any shape.
        low, high: the bounds, low <= high.

    Raises:
        ValueError: integer or NaN v; low above high.

    >>> project_box(torch.tensor([-0.2, 0.4, 1.3]))
    tensor([0.0000, 0.4000, 1.0000])
    """
    _check(v)
    if not low <= high:
        raise ValueError(f"low = {low}, high = {high}: low must not exceed high")
    return v.clamp(low, high)


def project_l2_ball(
    v: Float[Tensor, "*shape"], radius: Weight, *, dim: int | tuple[int, ...] = -1
) -> Float[Tensor, "*shape"]:
    """argmin_{||x_g||_2 <= radius} 1/2 ||x - v||^2 for each vector x_g along the axes `dim`.

    Args:
        v: any shape.
        radius: nonnegative; a tensor broadcasts against v with the axes `dim` of size 1.
        dim: the axis, or axes, of one vector.

    Raises:
        ValueError: integer or NaN v; negative or NaN radius.

    >>> project_l2_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    _check_values(v, "v")
    norm = torch.linalg.vector_norm(v, dim=dim, keepdim=True)
    _check_weight(radius, norm.shape, "radius")
    outside = norm > radius  # the inner where keeps a zero norm out of the gradient
    return torch.where(outside, v * (radius / torch.where(outside, norm, 1)), v)


def prox_conjugate(
    prox: Callable[[Tensor, float], Tensor], v: Float[Tensor, "*shape"], *, step: float | int = 1.0
) -> Float[Tensor, "*shape"]:
    """argmin_x 1/2 ||x - v||^2 + step f*(x), from the proximal map of f, by Moreau's identity.

    v = prox_{step f*}(v) + step prox_{f / step}(v / step), with the convex conjugate
    f*(x) = sup_u <x, u> - f(u).

    Args:
        prox: (v, t) -> argmin_x 1/2 ||x - v||^2 + t f(x), for a convex f.
        v: what `prox` takes.
        step: positive.

    Raises:
        ValueError: integer or NaN v; a step that is not positive.

    Reference: J.-J. Moreau, Proximite et dualite dans un espace hilbertien, 1965.

    >>> prox_conjugate(prox_l1, torch.tensor([3.0, -0.5]))  # the box [-1, 1]
    tensor([ 1.0000, -0.5000])
    """
    _check(v)
    if not step > 0:
        raise ValueError(f"step = {step}: a positive number is needed")
    return v - step * prox(v / step, 1 / step)


def _check(v: Tensor, weight: Weight = 0.0) -> None:
    _check_values(v, "v")
    _check_weight(weight, v.shape, "weight")


def _check_values(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise ValueError(f"{name} has dtype {x.dtype}: a floating-point tensor is needed")
    if x.isnan().any():
        raise ValueError(f"{name} of shape {tuple(x.shape)} contains NaN")


def _check_weight(weight: Weight, shape: tuple[int, ...] | None, name: str) -> None:
    """Every entry a number >= 0, and a tensor one that broadcasts to `shape`, if there is one."""
    is_tensor = isinstance(weight, Tensor)
    worst = weight
    if is_tensor:  # a NaN wins in a minimum, and an empty one fits an empty v
        worst = float(weight.detach().min()) if weight.numel() else 0.0
    if not worst >= 0:
        raise ValueError(f"{name} = {worst}: it must be nonnegative")
    if is_tensor and shape is not None and not _broadcasts(weight.shape, shape):
        raise ValueError(
            f"{name} of shape {tuple(weight.shape)} does not broadcast to {tuple(shape)}"
        )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    padded = (1,) * (len(to) - len(shape)) + tuple(shape)
    return len(padded) == len(to) and all(a in (1, b) for a, b in zip(padded, to, strict=True))
