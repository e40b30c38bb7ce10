"""Anderson and Broyden: where they pay, their formulas, what they do in degenerate cases."""

import math

import pytest
import torch
from contractions import contraction, randn, tanh_map

from tutorial_lib.acceleration import _weights
from tutorial_lib.fixed_points import fixed_point

# Solutions ---------------------------------------------------------------------------------------


def test_anderson_with_a_long_memory_solves_n_unknowns_in_n_plus_two_evaluations():
    A, b = contraction(6, 0.95), randn(1, 6, seed=1)
    options = {"rtol": 1e-6, "ridge": 1e-14, "memory": 8}
    assert fixed_point(lambda z: z @ A + b, torch.zeros_like(b), **options)[1].evaluations <= 8


@pytest.mark.parametrize("memory", [3, 5, 10])
def test_acceleration_pays_for_a_map_that_hardly_contracts(memory):
    Q = torch.linalg.qr(randn(100, 100))[0]
    A = Q @ torch.diag(torch.linspace(-0.99, 0.99, 100, dtype=torch.float64)) @ Q.mT
    b = randn(4, 100, seed=1)
    counts = {
        method: fixed_point(
            lambda z: z @ A + b,
            torch.zeros_like(b),
            method=method,
            memory=memory,
            rtol=1e-5,
            max_steps=2000,
        )[1]
        for method in ("picard", "anderson", "broyden")
    }
    assert all(info.converged.all() for info in counts.values())
    assert counts["anderson"].evaluations < 0.6 * counts["picard"].evaluations
    assert counts["broyden"].evaluations < 0.9 * counts["picard"].evaluations


# Failures are loud -------------------------------------------------------------------------------


def test_the_fallbacks_of_a_singular_gram_matrix():
    twins = torch.ones(1, 2, 2, dtype=torch.float64)
    assert torch.allclose(_weights(twins, None, 0, 1e-8), torch.full((1, 2), 0.5).double())
    assert torch.allclose(_weights(twins, None, 0, 0.0), torch.full((1, 2), 0.5).double())
    hopeless = torch.full((1, 2, 2), math.nan, dtype=torch.float64)
    both = torch.cat([hopeless, torch.eye(2).double()[None]])
    assert _weights(both, None, 1, 0.0).tolist() == [[0, 1], [0.5, 0.5]]
    f = lambda z: torch.full_like(z, 2.0)  # noqa: E731  (all residuals are zero after one step)
    z, info = fixed_point(f, torch.zeros(2, 3), ridge=0.0)
    assert info.evaluations == 2
    assert z.eq(2).all()


def test_ridge_is_relative_to_the_residuals():
    f, _, x = tanh_map(L=0.95)
    steps = [
        fixed_point(lambda z, s=s: s * f(z / s), torch.zeros_like(x), rtol=1e-8, ridge=1e-4)[
            1
        ].steps
        for s in (1e-6, 1.0)
    ]
    assert torch.equal(*steps)


@pytest.mark.parametrize("method", ["anderson", "broyden"])
def test_a_residual_that_leaps_clears_the_memory(method):
    """Ten times the smallest residual: a plain step, and a history that begins anew; row by row."""
    A, b = contraction(), randn(2, 12, seed=1)
    leap = []

    def f(z):
        value = z @ A + b
        if len(leap) == 6:
            value = torch.stack([value[0], value[1] + 1e3])
        leap.append((z.clone(), value))
        return value

    fixed_point(f, torch.zeros_like(b), method=method, rtol=0.0, max_steps=8)
    (_, value), (following, _) = leap[6:]
    assert torch.allclose(following[1], value[1], rtol=1e-12)  # plain
    assert not torch.allclose(following[0], value[0], rtol=1e-6)


# The chapter -------------------------------------------------------------------------------------


def test_equation_2_the_weights_are_the_constrained_minimiser():
    gaps = randn(1, 4, 9)
    gram, rho = gaps @ gaps.mT, 0.1
    a = _weights(gram, None, 0, rho)[0]
    assert a.sum() == pytest.approx(1)

    def value(a):
        return (a @ gaps[0]).square().sum() + rho * (a.square() * gram[0].diagonal()).sum()

    for seed in range(20):
        move = randn(4, seed=seed)
        assert value(a + 1e-3 * (move - move.mean())) > value(a)


def test_equation_3_a_broyden_step_satisfies_the_secant_equation():
    """After z0, z1 the next step is -B g(z1) with B (g(z1) - g(z0)) = z1 - z0, rank one from -I."""
    A, b = contraction(), randn(1, 12, seed=1)
    seen = []

    def f(z):
        seen.append(z.clone())
        return z @ A + b

    fixed_point(f, torch.zeros_like(b), method="broyden", rtol=0.0, max_steps=3)
    z0, z1, z2 = (z[0] for z in seen)
    g0, g1 = (z @ A + b[0] - z for z in (z0, z1))
    s, y = z1 - z0, g1 - g0
    B = -torch.eye(12).double()
    B = B + torch.outer(s - B @ y, s @ B) / (s @ B @ y)
    assert torch.allclose(B @ y, s)
    assert torch.allclose(z2, z1 - B @ g1)
