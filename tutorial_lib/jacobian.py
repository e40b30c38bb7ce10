"""What the Jacobian J = df/dz of a map does at a state: its norm, its spectral radius, its size."""

import torch
from jaxtyping import Float
from torch import Tensor

from .states import Map, State, _check_count, _Form, _norm, _unit, _vjp


def jacobian_norm(
    f: Map, z: State, *, steps: int = 30, generator: torch.Generator | None = None
) -> Float[Tensor, " b"]:
    """||J||, the largest singular value of J = df/dz at z, for each sample.

    By `steps` products with J^T J from a random direction: an estimate from below. At an
    equilibrium, a value below one means that f contracts around it.

    Args:
        f, z: as in `fixed_point`.
        steps: at least 1.
        generator: of the random direction.

    Raises:
        ValueError: steps < 1, unequal forms.

    >>> A = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    >>> jacobian_norm(lambda z: z @ A, torch.zeros(1, 2))
    tensor([3.])
    """
    _check_count("steps", steps)
    with torch.enable_grad():
        value, z = _at(f, z)
        dual = torch.zeros_like(value, requires_grad=True)
        transposed = _vjp(value, z, dual, create=True)  # linear in dual: its derivative is J
    w = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
    for _ in range(steps):
        w = _unit(w)
        w = _vjp(transposed, dual, w)
        norm = _norm(w)
        w = _vjp(value, z, _unit(w))
    return norm


def spectral_radius(
    f: Map, z: State, *, steps: int = 100, generator: torch.Generator | None = None
) -> Float[Tensor, " b"]:
    """The largest |eigenvalue| of J = df/dz at z, for each sample.

    When f is iterated near a fixed point, each step in the end multiplies a small error by this
    factor. Found as the geometric mean of the growth over the second half of `steps` products
    with J^T.

    Args:
        f, z, generator: as in `jacobian_norm`.
        steps: at least 2.

    Raises:
        ValueError: steps < 2, unequal forms.

    >>> turn = torch.tensor([[0.0, 0.5], [-0.5, 0.0]])
    >>> spectral_radius(lambda z: z @ turn, torch.zeros(1, 2))
    tensor([0.5000])
    """
    _check_count("steps", steps, least=2)
    with torch.enable_grad():
        value, z = _at(f, z)
    w = _unit(torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator))
    logs = []
    for _ in range(steps):
        w = _vjp(value, z, w)
        logs.append(_norm(w).log())
        w = _unit(w)
    return torch.stack(logs[steps // 2 :]).mean(0).exp()


def jacobian_penalty(
    f: Map, z: State, *, generator: torch.Generator | None = None
) -> Float[Tensor, ""]:
    """An unbiased estimate of ||J||_F^2 / n, J = df/dz at z, the mean over the samples.

    ||J^T e||^2 / n with one standard normal e. It has a gradient for what f depends on: added to a
    loss, it keeps the map contractive where the equilibria are. z itself is held fixed.

    Args:
        f, z, generator: as in `jacobian_norm`.

    Raises:
        ValueError: unequal forms.

    Reference: S. Bai, V. Koltun, J. Z. Kolter, Stabilizing equilibrium models by Jacobian
    regularization, ICML 2021.

    >>> a = torch.tensor(0.5, requires_grad=True)
    >>> penalty = jacobian_penalty(lambda z: a * z, torch.zeros(4, 10_000))
    >>> round(penalty.item(), 2)
    0.25
    """
    with torch.enable_grad():
        value, z = _at(f, z)
        e = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        return _vjp(value, z, e, create=True).square().mean()


def _at(f: Map, z: State) -> tuple[Tensor, Tensor]:
    """f and its argument, flat and with a graph between them."""
    form = _Form(z)
    z = form.pack(z).detach().requires_grad_()
    value = form.flat(f)(z)
    if not value.requires_grad:  # f does not look at z
        value = value + 0 * z
    return value, z
