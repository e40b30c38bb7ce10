"""Fixed points: solutions, samples, states and tolerances."""

import math
import warnings

import pytest
import torch
from contractions import METHODS, contraction, randn, tanh_map

from tutorial_lib.fixed_points import fixed_point
from tutorial_lib.prox import prox_l1

# Solutions ---------------------------------------------------------------------------------------


@METHODS
def test_an_affine_map_is_solved_like_its_linear_system(method):
    A, b = contraction(), randn(4, 12, seed=1)
    z, info = fixed_point(
        lambda z: z @ A + b, torch.zeros_like(b), method=method, rtol=1e-12, max_steps=500
    )
    expected = torch.linalg.solve((torch.eye(12) - A).mT, b.mT).mT
    assert torch.allclose(z, expected, atol=1e-10)
    assert info.converged.all()
    assert info.reason == ["converged"] * 4


@METHODS
def test_the_cosine_and_the_square_root_of_two(method):
    z0 = torch.ones(1, 1, dtype=torch.float64)
    z, _ = fixed_point(torch.cos, z0, method=method, rtol=1e-10)
    assert z.item() == pytest.approx(0.7390851332, abs=1e-9)
    z, _ = fixed_point(lambda z: 0.5 * (z + 2 / z), z0, method=method, rtol=1e-12)
    assert z.item() == pytest.approx(math.sqrt(2), abs=1e-10)


@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_is_within_the_bound_and_dtype_is_kept(method, dtype):
    L = 0.9
    f, W, x = tanh_map(L=L)
    truth, _ = fixed_point(f, torch.zeros_like(x), rtol=1e-14, max_steps=400)
    W, x = W.to(dtype), x.to(dtype)
    for rtol in (1e-2, 1e-4):
        z, info = fixed_point(
            lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), method=method, rtol=rtol
        )
        assert z.dtype == info.residual.dtype == dtype
        error = (z - truth).norm(dim=1)
        assert (error <= info.distance / (1 - L)).all()
        assert (error > info.distance / (1 + L)).all()


def test_half_precision_is_solved_to_what_it_can_hold():
    f, W, x = tanh_map()
    truth, _ = fixed_point(f, torch.zeros_like(x), rtol=1e-12)
    W, x = W.bfloat16(), x.bfloat16()
    for method in ("picard", "anderson", "broyden"):
        z, info = fixed_point(
            lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), method=method, rtol=1e-2
        )
        assert z.dtype == torch.bfloat16
        assert info.residual.dtype == torch.float32
        assert info.converged.all()
        assert (z - truth).norm() < 0.1 * truth.norm()


def test_two_starts_agree_to_the_sum_of_their_residuals_over_one_minus_L():
    L = 0.95
    f, _, x = tanh_map(L=L)
    first, a = fixed_point(f, torch.zeros_like(x), rtol=1e-3)
    second, b = fixed_point(f, randn(*x.shape, seed=5), rtol=1e-3)
    apart = (first - second).norm(dim=1)
    assert (apart > 0).all()
    assert (apart <= (a.distance + b.distance) / (1 - L)).all()


@METHODS
def test_a_lasso_satisfies_its_optimality_conditions(method):
    D, y, lam = randn(10, 20), randn(3, 10, seed=1), 0.5
    D = D / D.norm(dim=0)
    t = 1 / torch.linalg.matrix_norm(D, 2).item() ** 2
    z, info = fixed_point(
        lambda z: prox_l1(z - t * (z @ D.mT - y) @ D, t * lam),
        torch.zeros(3, 20, dtype=torch.float64),
        method=method,
        rtol=1e-11,
        max_steps=20_000,
    )
    assert info.converged.all()
    correlation = (y - z @ D.mT) @ D
    on = z != 0
    assert on.any()
    assert torch.allclose(correlation[on], lam * z[on].sign(), atol=1e-6)
    assert (correlation.abs() <= lam + 1e-6).all()


# Samples, states and tolerances ------------------------------------------------------------------


@METHODS
def test_each_sample_is_solved_as_if_alone(method):
    A, b = contraction(), randn(4, 12, seed=1)
    rates = torch.tensor([0.1, 0.5, 1.0, 1.2]).double()[:, None]
    together, info = fixed_point(
        lambda z: torch.tanh(rates * (z @ A) + b), torch.zeros_like(b), method=method, rtol=1e-7
    )
    assert len(set(info.steps.tolist())) > 2
    assert info.evaluations == info.steps.max()
    for i in range(4):
        alone, own = fixed_point(
            lambda z, i=i: torch.tanh(rates[i] * (z @ A) + b[i]),
            torch.zeros(1, 12, dtype=torch.float64),
            method=method,
            rtol=1e-7,
        )
        assert own.evaluations == info.steps[i]
        assert torch.allclose(together[i], alone[0], atol=1e-12)
        assert torch.allclose(info.history[: info.steps[i], i], own.history[:, 0], rtol=1e-4)
        assert info.history[info.steps[i] :, i].isnan().all()


@METHODS
def test_a_stopped_sample_is_frozen_where_it_met_the_tolerance(method):
    A, b = contraction(), randn(2, 12, seed=1)
    rates = torch.tensor([0.1, 1.0]).double()[:, None]
    seen = []

    def f(z):
        seen.append(z.clone())
        return rates * (z @ A) + b

    z, info = fixed_point(f, torch.zeros_like(b), method=method, rtol=1e-6)
    assert info.steps[0] < info.steps[1] == len(seen)
    for state in seen[info.steps[0] - 1 :]:
        assert torch.equal(state[0], z[0])
    for i in range(2):  # the record is that of the state that is returned
        g = f(z)[i] - z[i]
        assert g.norm() == pytest.approx(info.distance[i].item(), rel=1e-6)
        relative = (g.norm() / f(z)[i].norm()).item()
        assert relative == pytest.approx(info.residual[i].item(), rel=1e-6)
        assert relative <= 1e-6


@METHODS
def test_a_tuple_of_tensors_is_solved_like_one_tensor(method):
    A, b = contraction(), randn(3, 12, seed=1)

    def f(state):
        u, v = state
        z = torch.cat([u.flatten(1), v], 1)
        z = torch.tanh(z @ A + b)
        return z[:, :8].reshape(3, 2, 2, 2), z[:, 8:]

    start = torch.zeros(3, 2, 2, 2).double(), torch.zeros(3, 4).double()
    (u, v), info = fixed_point(f, start, method=method, rtol=1e-9)
    one, own = fixed_point(
        lambda z: torch.tanh(z @ A + b), torch.zeros_like(b), method=method, rtol=1e-9
    )
    assert u.shape == (3, 2, 2, 2)
    assert torch.allclose(torch.cat([u.flatten(1), v], 1), one, atol=1e-14)
    assert torch.equal(info.steps, own.steps)


@METHODS
def test_relative_tolerance_does_not_see_the_unit_and_absolute_does(method):
    f, _, x = tanh_map()
    start = torch.zeros_like(x)
    for scale in (1e-3, 1e3):

        def scaled(z, scale=scale):
            return scale * f(z / scale)

        _, small = fixed_point(f, start, method=method, rtol=1e-5)
        _, large = fixed_point(scaled, start, method=method, rtol=1e-5)
        assert torch.equal(small.steps, large.steps)
        _, small = fixed_point(f, start, method=method, rtol=0.0, atol=1e-5)
        _, large = fixed_point(scaled, start, method=method, rtol=0.0, atol=1e-5)
        assert (small.distance <= 1e-5).all()
        assert (large.distance <= 1e-5).all()
        assert ((large.steps > small.steps) == (scale > 1)).all()


@METHODS
def test_without_a_tolerance_the_number_of_steps_is_exact(method):
    f, _, x = tanh_map()
    calls = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, info = fixed_point(
            lambda z: calls.append(1) or f(z),
            torch.zeros_like(x),
            method=method,
            rtol=0.0,
            max_steps=7,
        )
    assert len(calls) == info.evaluations == len(info.history) == 7
    assert info.reason == ["max_steps"] * 3
    assert not info.converged.any()


def test_damping_is_no_part_of_the_residual():
    f, _, x = tanh_map()
    full = fixed_point(f, torch.zeros_like(x), method="picard", rtol=0.0, max_steps=1)[1]
    half = fixed_point(f, torch.zeros_like(x), method="picard", share=0.5, rtol=0.0, max_steps=1)[1]
    assert torch.equal(full.residual, half.residual)
    _, info = fixed_point(f, torch.zeros_like(x), method="picard", share=0.5, rtol=1e-6)
    assert info.converged.all()
    flips = lambda z: 1 - 1.5 * z  # noqa: E731  (slope -1.5: only damping helps)
    z, info = fixed_point(flips, torch.zeros(1, 1), method="picard", share=0.5)
    assert info.converged.all()
    assert z.item() == pytest.approx(0.4, abs=1e-4)
