"""Norm, radius and penalty of a Jacobian."""

import pytest
import torch
from contractions import contraction, randn

from tutorial_lib.jacobian import jacobian_norm, jacobian_penalty, spectral_radius


def test_norm_radius_and_penalty_of_known_jacobians():
    A = torch.stack([contraction(6, 0.7), randn(6, 6, seed=2)])
    x = randn(2, 6, seed=3)
    f = lambda z: torch.einsum("bij,bj->bi", A, z) + x  # noqa: E731
    z = randn(2, 6, seed=4)
    norms = torch.linalg.matrix_norm(A, 2)
    g = torch.Generator().manual_seed(0)
    assert torch.allclose(jacobian_norm(f, z, steps=300, generator=g), norms, rtol=1e-4)
    radii = torch.linalg.eigvals(A).abs().amax(1)
    found = spectral_radius(f, z, steps=2000, generator=g)
    assert torch.allclose(found, radii, rtol=1e-2)
    draws = torch.stack([jacobian_penalty(f, z, generator=g) for _ in range(2000)])
    expected = A.square().sum() / 2 / 6
    assert draws.mean().item() == pytest.approx(expected.item(), rel=0.05)


def test_jacobians_of_a_tuple_are_those_of_its_flat_form():
    A = contraction(5, 0.6)
    flat = lambda z: torch.tanh(z @ A)  # noqa: E731

    def f(state):
        z = flat(torch.cat([state[0].flatten(1), state[1]], 1))
        return z[:, :4].reshape(2, 2, 2), z[:, 4:]

    z = randn(2, 5, seed=1)
    split = z[:, :4].reshape(2, 2, 2), z[:, 4:]
    for measure in (jacobian_norm, spectral_radius, jacobian_penalty):
        found = [
            measure(*call, generator=torch.Generator().manual_seed(0))
            for call in ((flat, z), (f, split))
        ]
        assert torch.allclose(*found)


def test_the_penalty_has_a_gradient_that_shrinks_the_jacobian():
    W = contraction(6, 0.9).requires_grad_()
    z = randn(3, 6, seed=1)
    f = lambda z: torch.tanh(z @ W)  # noqa: E731
    before = jacobian_norm(f, z).max()
    for step in range(20):
        g = torch.Generator().manual_seed(step)
        (slope,) = torch.autograd.grad(jacobian_penalty(f, z, generator=g), W)
        with torch.no_grad():
            W -= slope
    assert jacobian_norm(f, z).max() < 0.8 * before


def test_constant_maps_have_no_jacobian():
    f = lambda z: torch.ones_like(z)  # noqa: E731
    z = torch.zeros(2, 3)
    assert jacobian_norm(f, z).tolist() == spectral_radius(f, z).tolist() == [0, 0]
    with pytest.raises(ValueError, match="steps = 0"):
        jacobian_norm(f, z, steps=0)
    with pytest.raises(ValueError, match="steps = 1: a whole number of at least 2"):
        spectral_radius(f, z, steps=1)
