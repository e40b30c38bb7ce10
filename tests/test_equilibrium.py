"""Equilibria: three solvers, four gradients, and what they refuse to do silently."""

import ast
import itertools
import math
import re
import warnings
from dataclasses import FrozenInstanceError
from pathlib import Path

import jaxtyping
import pytest
import torch

from tutorial_lib.acceleration import _weights
from tutorial_lib.data import add_noise, photographs
from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Solver, fixed_point
from tutorial_lib.jacobian import jacobian_norm, jacobian_penalty, spectral_radius
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.sparse_equilibrium import SparseEquilibrium
from tutorial_lib.operators import NotConvergedWarning
from tutorial_lib.prox import prox_l1
from tutorial_lib.training import load_weights
from tutorial_lib.training.recipes import find

METHODS = pytest.mark.parametrize("method", ["picard", "anderson", "broyden"])


def randn(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def contraction(n=12, L=0.8, seed=0):
    """A matrix of norm L."""
    A = randn(n, n, seed=seed)
    return L * A / torch.linalg.matrix_norm(A, 2)


def tanh_map(n=12, b=3, L=0.8):
    """z -> tanh(z W + x), and W, x."""
    W, x = contraction(n, L), randn(b, n, seed=1)
    return (lambda z: torch.tanh(z @ W + x)), W, x


@pytest.fixture
def unchecked_types():
    """The messages that users see: annotations are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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


def test_anderson_with_a_long_memory_solves_n_unknowns_in_n_plus_two_evaluations():
    A, b = contraction(6, 0.95), randn(1, 6, seed=1)
    options = {"rtol": 1e-6, "ridge": 1e-14, "memory": 8}
    assert fixed_point(lambda z: z @ A + b, torch.zeros_like(b), **options)[1].evaluations <= 8


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


# Failures are loud -------------------------------------------------------------------------------


def test_a_slope_above_one_is_no_convergence():
    start = torch.ones(1, 1, dtype=torch.float64)
    with pytest.warns(NotConvergedWarning, match="1 of 1 did not reach rtol = 0.0001"):
        z, info = fixed_point(lambda z: 1.2 * z + 1, start, method="picard", max_steps=30)
    assert info.reason == ["max_steps"]
    assert z.isfinite().all()
    with pytest.warns(NotConvergedWarning, match="1 of them diverged"):
        z, info = fixed_point(lambda z: 1.2 * z + 1, start, method="picard", max_steps=500)
    assert info.reason == ["diverged"]
    assert info.evaluations < 100
    assert z.isfinite().all()
    z, info = fixed_point(lambda z: 1.2 * z + 1, start)  # a secant finds z* = -5 all the same
    assert z.item() == pytest.approx(-5, abs=1e-3)


def test_one_diverging_sample_leaves_the_others_alone():
    rates = torch.tensor([[0.5], [3.0], [0.2]]).double()
    with pytest.warns(NotConvergedWarning, match="1 of 3"):
        z, info = fixed_point(
            lambda z: rates * z + 1, torch.zeros(3, 1).double(), method="picard", rtol=1e-6
        )
    assert info.reason == ["converged", "diverged", "converged"]
    assert torch.allclose(z[[0, 2], 0], torch.tensor([2.0, 1.25]).double(), rtol=1e-5)


@METHODS
def test_an_overflow_is_divergence_with_a_finite_state(method):
    with pytest.warns(NotConvergedWarning):
        z, info = fixed_point(lambda z: z**3 + 2, torch.full((1, 3), 3.0), method=method)
    assert z.isfinite().all()
    assert info.residual.isfinite().all()
    assert not info.converged.any()


@METHODS
def test_a_map_that_makes_nan_is_an_error(method):
    with pytest.raises(FloatingPointError, match="evaluation 1: .* for 1 of 2 samples, first for"):
        fixed_point(lambda z: torch.stack([z[0], z[1] * math.nan]), torch.ones(2, 3), method=method)
    with pytest.raises(FloatingPointError, match=r"evaluation [2-9]"):
        fixed_point(lambda z: (0.9 - z).sqrt(), torch.full((1, 2), 0.05), method=method)


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


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "unknown method 'newton': allowed are picard, anderson, broyden"),
        ({"rtol": -1.0}, "rtol = -1.0: a nonnegative number"),
        ({"rtol": math.nan}, "rtol = nan"),
        ({"atol": -1e-3}, "atol = -0.001"),
        ({"ridge": -1.0}, "ridge = -1.0"),
        ({"max_steps": 0}, "max_steps = 0: a whole number of at least 1"),
        ({"max_steps": 2.5}, "max_steps = 2.5"),
        ({"memory": 0}, "memory = 0"),
        ({"share": 0.0}, "share = 0.0: a number above 0 and at most 1"),
        ({"share": 1.5}, "share = 1.5"),
        ({"gradient": "phantom", "tau": 1.5}, "tau = 1.5"),
        ({"gradient": "ift"}, "unknown gradient 'ift': allowed are implicit, jfb, phantom, unr"),
        ({"gradient": "jfb", "backward": Solver()}, "backward is an option of gradient 'implicit'"),
        ({"k": 3}, "k and tau are options of gradient 'phantom', not of 'implicit'"),
        ({"gradient": "phantom", "k": 0}, "k = 0"),
        ({"gradient": "unrolled"}, "takes the method 'picard', not 'anderson'"),
        ({"solver": Solver(), "rtol": 1e-3}, "rtol beside a solver"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        equilibrium(lambda z: z / 2, torch.ones(1, 1), **options)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("z0", "f", "message"),
    [
        (torch.ones(2, 3), lambda z: z[:, :2], r"state \(2, 3\) of .* gives \(2, 2\)"),
        (torch.ones(2, 3), lambda z: z.double(), "of torch.float32 and gives .*torch.float64"),
        (torch.ones(2, 3), lambda z: (z,), "must be equal"),
        ((torch.ones(2, 3), torch.ones(2)), lambda z: z[0], "must be equal"),
        ((torch.ones(2, 3), torch.ones(3)), None, "one number of samples"),
        ((torch.ones(2), torch.ones(2).double()), None, "one dtype"),
        (torch.ones(0, 3), None, "at least one"),
        (torch.ones(2).long(), None, "torch.int64 .*floating-point"),
        (torch.tensor(1.0), None, r"floating-point tensors \(b, ...\)"),
        ([torch.ones(2)], None, "z0 is a list: a tensor or a tuple"),
        (torch.tensor([[1.0], [math.nan]]), None, r"z0 of shape \(2, 1\) contains NaN"),
    ],
)
def test_states_that_do_not_fit_are_refused(z0, f, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(f or (lambda z: z), z0)


def test_unknown_options_fail():
    for function in (fixed_point, equilibrium):
        with pytest.raises(TypeError, match="tolerance"):
            function(lambda z: z / 2, torch.ones(1, 1), tolerance=1e-3)
    with pytest.raises(FrozenInstanceError):
        Solver().rtol = 1.0


# Gradients ---------------------------------------------------------------------------------------

TIGHT = {"rtol": 1e-13, "max_steps": 2000}


@METHODS
def test_implicit_gradient_passes_gradcheck(method):
    W, U, x = contraction(5), randn(4, 5, seed=1), randn(2, 4, seed=2)
    inputs = [u.requires_grad_() for u in (W, U, x)]

    def layer(W, U, x):
        f = lambda z: torch.tanh(z @ W + x @ U)  # noqa: E731
        return equilibrium(f, x.new_zeros(2, 5), method=method, **TIGHT).value

    assert torch.autograd.gradcheck(layer, inputs)


def test_implicit_gradient_of_a_tuple_passes_gradcheck():
    W, V = contraction(5), randn(2, 5, seed=1)
    inputs = [u.requires_grad_() for u in (W, V)]

    def layer(W, V):
        def f(state):
            z = torch.cat([state[0].flatten(1), state[1]], 1)
            z = torch.tanh(z @ W + V)
            return z[:, :4].reshape(2, 2, 2), z[:, 4:]

        start = torch.zeros(2, 2, 2).double(), torch.zeros(2, 1).double()
        return equilibrium(f, start, **TIGHT).value

    assert torch.autograd.gradcheck(layer, inputs)


def test_unrolled_gradient_passes_gradcheck_with_and_without_frozen_samples():
    W, x, z0 = contraction(4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    scale = torch.tensor([0.1, 0.6, 1.0]).double()[:, None]
    inputs = [u.requires_grad_() for u in (W, x, z0)]
    for options in ({"rtol": 0.0, "max_steps": 4}, {"rtol": 1e-2}, {"rtol": 0.0, "share": 0.7}):
        options = {"method": "picard", "max_steps": 6, **options}

        def layer(W, x, z0, options=options):
            f = lambda z: torch.tanh(scale * (z @ W) + x)  # noqa: E731
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConvergedWarning)
                return equilibrium(f, z0, gradient="unrolled", **options).value

        assert torch.autograd.gradcheck(layer, inputs)


def gradients(gradient, rtol=1e-12, L=0.8, **options):
    """d <c, value> / dW in a flat vector, and the value."""
    W, x, c = contraction(8, L), randn(3, 8, seed=1), randn(3, 8, seed=2)
    W.requires_grad_()
    options = {"rtol": rtol, "max_steps": 3000, **options}
    value, info = equilibrium(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), gradient=gradient, **options
    )
    (c * value).sum().backward()
    return W.grad.flatten(), info


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=0).item()


def test_implicit_equals_the_dense_solve_and_the_unrolled_gradient():
    implicit, info = gradients("implicit")
    unrolled, _ = gradients("unrolled", method="picard")
    assert torch.allclose(implicit, unrolled, atol=1e-9)
    assert info.backward.converged.all()

    W, x, c = contraction(8), randn(3, 8, seed=1), randn(3, 8, seed=2)
    z, _ = fixed_point(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), rtol=1e-14)
    slope = 1 - z.square()
    dense = torch.zeros(8, 8, dtype=torch.float64)
    for z_i, s_i, c_i in zip(z, slope, c, strict=True):
        J = torch.diag(s_i) @ W.mT  # dz'/dz
        w = torch.linalg.solve((torch.eye(8) - J).mT, c_i)
        dense += torch.outer(z_i, s_i * w)
    assert torch.allclose(implicit, dense.flatten(), atol=1e-9)


def test_a_looser_backward_solve_gives_a_worse_gradient():
    exact, _ = gradients("implicit")
    errors = []
    for rtol in (1e-1, 1e-3, 1e-6):
        found, info = gradients("implicit", backward=Solver(rtol=rtol))
        assert info.backward.residual.max() <= rtol
        errors.append(((found - exact).norm() / exact.norm()).item())
    assert errors[0] > 5 * errors[1] > 25 * errors[2] > 0


def test_jfb_and_phantom_gradients_point_towards_the_exact_one():
    exact, _ = gradients("implicit", L=0.95)
    jfb, _ = gradients("jfb", L=0.95)
    one, _ = gradients("phantom", L=0.95, k=1, tau=1.0)
    assert torch.equal(jfb, one)
    cosines = [cosine(jfb, exact)]
    for k in (2, 4, 100):
        phantom, info = gradients("phantom", L=0.95, k=k, tau=0.9)
        cosines.append(cosine(phantom, exact))
        assert info.backward is None
    assert 0 < cosines[0] < cosines[1] < cosines[2] < cosines[3]
    assert torch.allclose(phantom, exact, rtol=1e-3, atol=1e-3)


def test_a_phantom_gradient_is_the_neumann_sum_of_its_formula():
    W, b = contraction(6), randn(2, 6, seed=1)
    b.requires_grad_()
    k, tau = 3, 0.7
    value, _ = equilibrium(
        lambda z: z @ W + b,
        torch.zeros(2, 6).double(),
        gradient="phantom",
        k=k,
        tau=tau,
        rtol=1e-12,
    )
    v = randn(2, 6, seed=3)
    (found,) = torch.autograd.grad(value, b, v)
    damped = tau * W.mT + (1 - tau) * torch.eye(6).double()
    expected = sum(tau * v @ torch.linalg.matrix_power(damped, i) for i in range(k))
    assert torch.allclose(found, expected, atol=1e-12)


def test_value_is_one_application_after_the_state_that_is_described():
    f, _, x = tanh_map()
    z, info = fixed_point(f, torch.zeros_like(x), rtol=1e-3)
    calls = []
    counted = lambda z: calls.append(1) or f(z)  # noqa: E731
    value, same = equilibrium(counted, torch.zeros_like(x), rtol=1e-3)
    assert torch.equal(value, f(z))
    assert torch.equal(same.residual, info.residual)
    assert len(calls) == info.evaluations + 1
    with torch.no_grad():
        assert torch.equal(equilibrium(f, torch.zeros_like(x), rtol=1e-3).value, value)
    plain = {"method": "picard", "rtol": 0.0, "max_steps": 3}
    value, _ = equilibrium(f, torch.zeros_like(x), gradient="unrolled", **plain)
    assert torch.equal(value, f(f(f(torch.zeros_like(x)))))


def test_second_derivatives_of_implicit_are_refused():
    a = torch.tensor(0.5, requires_grad=True)
    value = equilibrium(lambda z: a.exp() * z.cos(), torch.zeros(1, 1)).value
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value.sum(), a, create_graph=True)


def test_the_backward_solve_tells_when_it_fails():
    a = torch.tensor(0.9999, requires_grad=True)
    value, info = equilibrium(
        lambda z: a * z, torch.zeros(1, 1), backward=Solver(method="picard", max_steps=3)
    )
    assert info.backward is None
    with pytest.warns(NotConvergedWarning, match="backward: 1 of 1"):
        value.sum().backward()
    assert info.backward.reason == ["max_steps"]
    assert info.backward.evaluations == 3


def test_maps_without_parameters_or_without_a_state():
    value, _ = equilibrium(torch.cos, torch.ones(1, 1))
    assert value.item() == pytest.approx(0.739, abs=1e-3)
    b = torch.ones(1, 2, requires_grad=True)
    equilibrium(lambda z: 2 * b, torch.zeros(1, 2)).value.sum().backward()
    assert b.grad.tolist() == [[2, 2]]


def saved_bytes(run):
    """Bytes of the distinct tensors that autograd keeps for the backward."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_is_flat_for_implicit_and_linear_for_unrolled():
    W, x = contraction(64, 0.9).requires_grad_(), randn(16, 64, seed=1)
    f = lambda z: torch.tanh(z @ W + x)  # noqa: E731

    def kept(gradient, steps, method="anderson"):
        options = {"method": method, "rtol": 0.0, "max_steps": steps}
        return saved_bytes(
            lambda: equilibrium(f, torch.zeros_like(x), gradient=gradient, **options)
        )

    for gradient in ("implicit", "jfb", "phantom"):
        assert kept(gradient, 5) == kept(gradient, 100) > 0
    unrolled = [kept("unrolled", steps, "picard") for steps in (5, 50, 100)]
    assert unrolled[2] - unrolled[1] == pytest.approx(50 / 45 * (unrolled[1] - unrolled[0]))
    assert unrolled[2] > 15 * kept("implicit", 100)


# The Jacobian ------------------------------------------------------------------------------------


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


# The chapter -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells():
    """The functions that chapter 18 shows, as they stand there."""
    path = Path(__file__).parents[1] / "book/chapters/18_deep_equilibrium.md"
    blocks = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", path.read_text("utf8"), re.S | re.M)
    names = {"torch": torch, "fixed_point": fixed_point, "prox_l1": prox_l1}
    wanted = ("picard", "anderson", "implicit_gradient", "ista_step", "saved_bytes")
    for block in blocks:
        if not re.search(rf"^def ({'|'.join(wanted)})\(", block, re.M):
            continue
        for node in ast.parse(block).body:
            if isinstance(node, ast.FunctionDef) and node.name in wanted:
                exec(ast.unparse(node), names)
    assert set(wanted) <= names.keys()
    return names


def test_the_chapters_picard_and_anderson_are_the_packages(cells):
    f, _, x = tanh_map(b=1)
    z, residuals = cells["picard"](f, torch.zeros_like(x), rtol=1e-6)
    found, info = fixed_point(f, torch.zeros_like(x), method="picard", rtol=1e-6)
    assert torch.equal(z, found)
    assert residuals[-1] == pytest.approx(info.distance.item(), rel=1e-12)

    single = lambda z: f(z[None])[0]  # noqa: E731
    _, residuals = cells["anderson"](single, torch.zeros(12).double(), steps=9, ridge=1e-10)
    options = {"rtol": 0.0, "max_steps": 9, "ridge": 1e-10}
    info = fixed_point(f, torch.zeros_like(x), **options)[1]
    expected = torch.tensor(residuals, dtype=torch.float64)
    assert torch.allclose(info.history[:, 0], expected, rtol=1e-5)


def test_the_chapters_implicit_gradient_is_the_packages(cells):
    f, W, x = tanh_map()
    W.requires_grad_()
    v = randn(*x.shape, seed=3)
    z, _ = fixed_point(f, torch.zeros_like(x), rtol=1e-13)
    (mine,) = cells["implicit_gradient"](f, z, v, [W])
    value, _ = equilibrium(f, torch.zeros_like(x), rtol=1e-13)
    (found,) = torch.autograd.grad((v * value).sum(), W)
    assert torch.allclose(mine, found, atol=1e-10)


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


def test_equation_4_and_the_elastic_factor(cells):
    D, y = randn(8, 16), randn(2, 8, seed=1)
    t, lam = 1 / torch.linalg.matrix_norm(D, 2).item() ** 2, 0.4
    step = cells["ista_step"]
    cells["t"] = t
    for mu in (0.0, 0.5, 3.0):
        u, v = randn(2, 16, seed=2), randn(2, 16, seed=3)
        moved = (step(u, D, y, lam, mu) - step(v, D, y, lam, mu)).norm()
        assert moved <= (u - v).norm() / (1 + t * mu)
    f = lambda z: step(z, D, y, lam)  # noqa: E731
    z, _ = fixed_point(f, torch.zeros(2, 16).double(), rtol=1e-13, max_steps=5000)
    c = (y - z @ D.mT) @ D
    assert (c.abs() <= lam + 1e-9).all()
    assert torch.allclose(c[z != 0], lam * z[z != 0].sign())


# The learned layer -------------------------------------------------------------------------------


def test_the_learned_layer_starts_as_ista_for_its_own_objective():
    torch.manual_seed(0)
    net = SparseEquilibrium(3, mu=0.2).double()
    y = randn(2, 9, 8, seed=1)

    def objective(z):
        D = net.filters(net.D)
        fit = (y - torch.conv_transpose2d(z, D, padding=1)[:, 0]).square().sum() / 2
        T = torch.nn.functional.softplus(net.T)
        return fit + (T * z.abs()).sum() + 0.1 * z.square().sum()

    z, values = torch.zeros(2, 9, 9, 8).double(), []
    for _ in range(200):
        values.append(objective(z))
        z = net.step(z, y)
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    u, v = randn(2, 9, 9, 8, seed=2), randn(2, 9, 9, 8, seed=3)
    assert (net.step(u, y) - net.step(v, y)).norm() <= (u - v).norm() / 1.2 + 1e-12
    for move in range(10):
        assert objective(z + 1e-3 * randn(*z.shape, seed=move)) > objective(z)


def test_equation_7_is_the_forward_pass():
    net = SparseEquilibrium(3)
    y = torch.rand(2, 10, 12)
    z, info = net.codes(y, solver=Solver(rtol=1e-5))
    assert z.shape == (2, 9, 10, 12)
    assert info.converged.all()
    mean = y.mean((1, 2), keepdim=True)
    synthesis = torch.conv_transpose2d(z, net.filters(net.C), padding=1)[:, 0]
    assert torch.allclose(net(y, solver=Solver(rtol=1e-5)), mean + synthesis, atol=1e-6)
    moved = net(y + 0.25, solver=Solver(rtol=1e-5))
    assert torch.allclose(moved, mean + 0.25 + synthesis, atol=1e-4)
    one = net(y[1:], solver=Solver(rtol=1e-5))
    assert torch.allclose(one, (mean + synthesis)[1:], atol=1e-5)
    unrolled = SparseEquilibrium(3, unrolled=4)
    z = torch.zeros(2, 9, 10, 12)
    for _ in range(4):
        z = unrolled.step(z, y - mean)
    assert torch.allclose(unrolled(y), unrolled.restore(z, y))


def test_every_parameter_of_the_learned_layer_has_its_exact_gradient():
    torch.manual_seed(0)
    net = SparseEquilibrium(3, mu=0.3).double()
    y = torch.rand(1, 5, 5, dtype=torch.float64)
    names, values = zip(*net.named_parameters(), strict=True)
    solver = Solver(rtol=1e-13, max_steps=2000)

    def layer(*values):
        return torch.func.functional_call(
            net, dict(zip(names, values, strict=True)), (y,), {"solver": solver}
        )

    assert torch.autograd.gradcheck(layer, values)


@pytest.mark.parametrize("name", ["equilibrium_implicit", "equilibrium_unrolled"])
def test_the_recorded_networks_denoise_and_only_one_may_go_on(name):
    network = find(name).trained()
    record = load_weights(name)[1]
    assert record["parameters"] == sum(p.numel() for p in network.parameters()) == 1901
    x = photographs(size=96)[:4]
    y = add_noise(x, 25 / 255, seed=0)
    centred = y - y.mean((1, 2), keepdim=True)
    with torch.no_grad():
        z = network.codes(y).value
        level = psnr(network.restore(z, y), x).mean()
        assert level.item() == pytest.approx(record["scores"]["psnr"], abs=0.02)
        for _ in range(100):
            z = network.step(z, centred)
        drop = level - psnr(network.restore(z, y), x).mean()
    assert abs(drop) < 0.1 if name == "equilibrium_implicit" else drop > 2
