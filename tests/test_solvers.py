"""Solvers: theorems, certificates, scikit-learn's answer, the loop's contract, clear refusals."""

import math
import warnings

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from tutorial_lib.operators import LinearOperator, blur, identity, matrix, wavelet_synthesis
from tutorial_lib.prox import prox_l1
from tutorial_lib.solvers import (
    NotConvergedWarning,
    Solution,
    fista,
    gradient_step,
    ista,
    lasso_gap,
    lasso_objective,
)

SOLVERS = pytest.mark.parametrize("solve", [ista, fista])


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(m=20, n=40, *, seed=0, batch=()):
    """A random lasso: the operator, y, a lam that leaves some entries, and L = ||A||^2."""
    M = randn(m, n, seed=seed)
    y = randn(*batch, m, seed=seed + 1000)
    lam = 0.3 * float((y @ M).abs().amax(-1).min())
    return matrix(M), y, lam, torch.linalg.matrix_norm(M, 2).item() ** 2


def minimum(A, y, lam, L):
    return fista(A, y, lam, step=1 / L, rtol=1e-14, max_steps=100_000).value


def path(solve, A, y, lam, **options):
    """F after each step."""
    values = []
    solve(A, y, lam, callback=lambda k, x: values.append(lasso_objective(A, y, x, lam)), **options)
    return torch.stack(values)


# Answers -----------------------------------------------------------------------------------------


@SOLVERS
def test_orthogonal_operator_is_solved_by_one_soft_threshold(solve):
    Q, _ = torch.linalg.qr(randn(9, 9))
    A, y = matrix(Q), randn(3, 9, seed=1)
    closed = prox_l1(y @ Q, 0.4)
    one = solve(A, y, 0.4, step=1.0, max_steps=1, rtol=0).value
    assert torch.allclose(one, closed, atol=1e-12)
    more = solve(A, y, 0.4, step=1.0, max_steps=7, rtol=0).value
    assert torch.allclose(more, closed, atol=1e-12)


@SOLVERS
@pytest.mark.parametrize("shape", [(30, 12), (20, 40)])
def test_the_answer_is_that_of_scikit_learn(solve, shape):
    A, y, lam, L = problem(*shape)
    M = A(torch.eye(shape[1]).double()).mT
    # scikit-learn minimises 1/(2 m) ||y - A x||^2 + alpha ||x||_1
    reference = Lasso(alpha=lam / len(y), fit_intercept=False, tol=1e-14, max_iter=1_000_000)
    expected = torch.from_numpy(reference.fit(M.numpy(), y.numpy()).coef_)
    found = solve(A, y, lam, step=1 / L, rtol=1e-13, max_steps=100_000)
    assert found.converged
    assert torch.allclose(found.value, expected, atol=1e-7)
    assert 0 < (expected != 0).sum() < shape[1]
    for x in (expected, found.value):
        assert 0 <= lasso_gap(A, y, x, lam) <= 1e-10 * lasso_objective(A, y, x, lam)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("momentum", ["nesterov", "chambolle-dossal"])
def test_optimality_conditions(momentum, restart):
    """A^T(y - A x) = lam sign(x) where x is not 0, and is at most lam where it is."""
    A, y, lam, L = problem()
    x = fista(
        A, y, lam, step=1 / L, rtol=1e-13, max_steps=100_000, momentum=momentum, restart=restart
    ).value
    correlation = A.adjoint(y - A(x))
    assert torch.allclose(correlation[x != 0], lam * x[x != 0].sign(), atol=1e-7)
    assert (correlation[x == 0].abs() <= lam * (1 + 1e-7)).all()


@SOLVERS
def test_a_large_lam_gives_zero_and_a_little_less_does_not(solve):
    A, y, _, L = problem()
    largest = float(A.adjoint(y).abs().max())
    zero = solve(A, y, largest * (1 + 1e-9), step=1 / L)
    assert zero.value.abs().max() == 0
    assert (zero.converged.item(), zero.steps) == (True, 1)
    assert solve(A, y, 0.99 * largest, step=1 / L).value.abs().max() > 0


def test_weights_zero_are_not_penalised_and_lam_zero_is_least_squares():
    A, y, _, L = problem(30, 8)
    M = A(torch.eye(8).double()).mT
    least_squares = torch.linalg.lstsq(M, y[:, None]).solution[:, 0]
    assert torch.allclose(minimum(A, y, 0.0, L), least_squares, atol=1e-9)
    weights = torch.tensor([0.0, 0.0, *[1e6] * 6]).double()
    first = torch.linalg.lstsq(M[:, :2], y[:, None]).solution[:, 0]
    x = minimum(A, y, weights, L)
    assert torch.allclose(x[:2], first, atol=1e-9)
    assert x[2:].abs().max() == 0


def test_objective_is_the_formula_and_differentiable():
    A, y, lam, _ = problem(5, 7, batch=(2,))
    x, M = randn(2, 7, seed=3), A(torch.eye(7).double()).mT
    for i in range(2):
        expected = 0.5 * (y[i] - M @ x[i]).square().sum() + lam * x[i].abs().sum()
        assert torch.isclose(lasso_objective(A, y, x, lam)[i], expected)
    assert torch.autograd.gradcheck(lambda x: lasso_objective(A, y, x, lam), x.requires_grad_())
    assert gradient_step(x, 2 * x, step=0.25).allclose(x / 2)


# The gap -----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 500),
    shape=st.sampled_from([(6, 4), (5, 12), (10, 10)]),
    free=st.integers(0, 3),
    steps=st.integers(0, 30),
)
def test_gap_bounds_the_distance_to_the_minimum(seed, shape, free, steps):
    """Anywhere: at random points and along the way, with unpenalised entries or without."""
    A, y, lam, L = problem(*shape, seed=seed)
    weights = lam * (0.5 + torch.rand(shape[1], generator=torch.Generator().manual_seed(seed)))
    weights = weights.double()
    weights[:free] = 0.0
    best = minimum(A, y, weights, L)
    lowest = lasso_objective(A, y, best, weights)
    x = randn(shape[1], seed=seed + 1)
    if steps:
        x = ista(A, y, weights, step=1 / L, x0=x, max_steps=steps, rtol=0).value
    gap = lasso_gap(A, y, x, weights)
    assert gap >= (lasso_objective(A, y, x, weights) - lowest) - 1e-8 * lowest
    assert abs(lasso_gap(A, y, best, weights)) <= 1e-8 * (1 + lowest)


def test_gap_is_small_only_near_the_minimum_and_falls_along_the_path():
    A, y, lam, L = problem(batch=(3,))
    gaps = []
    fista(
        A,
        y,
        lam,
        step=1 / L,
        max_steps=400,
        rtol=0,
        callback=lambda k, x: gaps.append(lasso_gap(A, y, x, lam)),
    )
    gaps = torch.stack(gaps)
    assert (gaps >= 0).all()
    assert (gaps[-1] < 1e-8 * gaps[0]).all()
    assert torch.allclose(
        lasso_gap(A, y, torch.zeros(3, 40).double(), lam)[1],
        lasso_gap(A, y[1], torch.zeros(40).double(), lam),
    )


def test_gap_with_free_entries_needs_the_projection():
    """Scaled alone, a dual point with free correlations would have to be zero: gap F(x)."""
    A, y, lam, L = problem(20, 10)
    weights = torch.full((10,), lam).double()
    weights[:2] = 0
    x = ista(A, y, weights, step=1 / L, max_steps=200, rtol=0).value
    assert lasso_gap(A, y, x, weights) < 1e-3 * lasso_objective(A, y, x, weights)


def test_gap_of_an_exact_fit_and_of_no_penalty():
    A = identity((3,))
    y = torch.tensor([1.0, 2.0, 3.0]).double()
    assert torch.isclose(lasso_gap(A, y, y, 0.1), torch.tensor(0.6).double())  # D(0) = 0
    assert lasso_gap(A, y, y, 0.0) == 0
    assert torch.isclose(lasso_gap(A, y, 0 * y, 0.0), y.square().sum() / 2)


# Theorems ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rates():
    A, y, lam, L = problem(60, 120, seed=7)
    best = minimum(A, y, lam / 10, L)
    start = 3 * randn(120, seed=8)
    return A, y, lam / 10, L, best, start


def test_ista_obeys_its_rate_and_never_rises(rates):
    A, y, lam, L, best, start = rates
    F = path(ista, A, y, lam, step=1 / L, x0=start, max_steps=400, rtol=0)
    excess = F - lasso_objective(A, y, best, lam)
    k = torch.arange(1, 401)
    assert (excess <= L * (start - best).square().sum() / (2 * k)).all()
    assert (F.diff() <= 1e-12 * F[0]).all()


def test_fista_obeys_its_rate_and_beats_ista(rates):
    A, y, lam, L, best, start = rates
    options = {"step": 1 / L, "x0": start, "max_steps": 400, "rtol": 0}
    F = path(fista, A, y, lam, restart=False, **options)
    lowest = lasso_objective(A, y, best, lam)
    k = torch.arange(1, 401)
    assert (F - lowest <= 2 * L * (start - best).square().sum() / (k + 1) ** 2).all()
    slow = path(ista, A, y, lam, **options)
    assert (F[-1] - lowest) < 0.1 * (slow[-1] - lowest)


def test_restart_momentum_and_a_have_an_effect(rates):
    A, y, lam, L, best, start = rates
    lowest = lasso_objective(A, y, best, lam)
    options = {"step": 1 / L, "x0": start, "max_steps": 400, "rtol": 0}
    excess = {
        name: (path(fista, A, y, lam, **options, **more)[-1] - lowest).item()
        for name, more in {
            "restart": {"restart": True},
            "plain": {"restart": False},
            "cd 3": {"restart": False, "momentum": "chambolle-dossal"},
            "cd 20": {"restart": False, "momentum": "chambolle-dossal", "a": 20.0},
        }.items()
    }
    assert excess["restart"] < 1e-3 * excess["plain"]
    assert len(set(excess.values())) == 4
    rises = (path(fista, A, y, lam, restart=False, **options).diff() > 0).any()
    assert rises  # which is what the restart answers


@pytest.mark.parametrize("restart", [True, False])  # nothing turns in so few steps
def test_steps_of_fista_are_those_of_the_formulas(restart):
    A, y, lam, L = problem()
    for momentum, t in (
        ("nesterov", [1.0, (1 + 5**0.5) / 2, None]),
        ("chambolle-dossal", [1.0, 1 + 1 / 5, 1 + 2 / 5]),  # (k + a - 1)/a with a = 5
    ):
        t[2] = t[2] or (1 + (1 + 4 * t[1] ** 2) ** 0.5) / 2
        x, z = torch.zeros(40).double(), torch.zeros(40).double()
        for k in range(2):
            old, x = x, prox_l1(z - A.adjoint(A(z) - y) / L, lam / L)
            z = x + (t[k] - 1) / t[k + 1] * (x - old)
        x = prox_l1(z - A.adjoint(A(z) - y) / L, lam / L)
        got = fista(
            A, y, lam, step=1 / L, momentum=momentum, a=5.0, restart=restart, max_steps=3, rtol=0
        )
        assert torch.allclose(got.value, x, atol=1e-13)


def test_a_step_above_two_over_the_squared_norm_diverges_and_one_below_converges():
    """By the factor (1 - step L)^2 a step, once the largest singular direction has taken over."""
    A, y, lam, L = problem()
    lam = lam / 10
    F = path(ista, A, y, lam, step=2.2 / L, max_steps=500, rtol=0)
    assert F[-1] > 1e50 * F[0]
    assert torch.isclose(F[-1] / F[-2], torch.tensor(1.2**2).double())
    F = path(ista, A, y, lam, step=1.95 / L, max_steps=9000, rtol=0)
    assert F[-1] - lasso_objective(A, y, minimum(A, y, lam, L), lam) < 1e-6


@SOLVERS
def test_the_step_by_default_is_slightly_below_one_over_the_squared_norm(solve):
    A, y, _, L = problem()
    x = solve(A, y, 0.0, max_steps=1, rtol=0).value  # = step A^T y
    ratio = x / A.adjoint(y) * L
    assert torch.allclose(ratio, ratio[0].expand(40))
    assert 0.95 < ratio[0] < 1
    nothing = LinearOperator(lambda x: 0 * x, lambda y: 0 * y, (3,), (3,))
    assert solve(nothing, torch.ones(3), 1.0).value.tolist() == [0.0, 0.0, 0.0]


# The contract of the loop ------------------------------------------------------------------------


@SOLVERS
def test_each_batch_element_is_solved_as_if_alone(solve):
    """Value and number of steps, with weights for all and with weights of their own."""
    A, y, lam, L = problem(batch=(2, 3))
    y = y * torch.tensor([1.0, 3.0, 0.01])[:, None]  # the last is solved by zero
    shared = torch.linspace(0.5, 1.5, 40).double() * lam
    own = shared * torch.tensor([0.2, 1.0, 2.0])[:, None]
    for weights in (lam, shared, own):
        together = solve(A, y, weights, step=1 / L, rtol=1e-7, max_steps=20_000)
        assert together.converged.shape == (2, 3)
        assert together.converged.all()
        assert together.history.shape == (together.steps, 2, 3)
        counts = (~together.history.isnan()).sum(0)
        for i in range(2):
            for j in range(3):
                w = weights[j] if weights is own else weights
                alone = solve(A, y[i, j], w, step=1 / L, rtol=1e-7, max_steps=20_000)
                assert alone.steps == counts[i, j]
                assert torch.allclose(together.value[i, j], alone.value, atol=1e-12)
                trace = together.history[: alone.steps, i, j]
                assert torch.allclose(trace, alone.history, atol=1e-12)
        assert len(set(counts.flatten().tolist())) > 2
        assert together.steps == counts.max()


def test_a_grid_of_lam_is_a_batch():
    A, y, lam, L = problem()
    grid = lam * torch.tensor([0.5, 1.0, 2.0]).double()[:, None]
    many = fista(A, y, grid, step=1 / L, rtol=1e-10, max_steps=20_000)
    assert many.value.shape == (3, 40)
    assert torch.allclose(many.value[1], minimum(A, y, lam, L), atol=1e-6)


@SOLVERS
def test_history_is_the_relative_length_of_each_step(solve):
    A, y, lam, L = problem()
    iterates = [torch.zeros(40).double()]
    found = solve(
        A, y, lam, step=1 / L, rtol=1e-5, max_steps=5000, callback=lambda k, x: iterates.append(x)
    )
    assert found.history.shape == (found.steps,)
    assert found.history[-1] <= 1e-5 < found.history[:-1].min()
    assert torch.equal(found.value, iterates[-1])
    if solve is ista:
        x = torch.stack(iterates)
        assert torch.allclose(found.history, x.diff(dim=0).norm(dim=1) / x[1:].norm(dim=1))


@SOLVERS
def test_rtol_zero_takes_exactly_max_steps_of_one_gram_each(solve):
    A, y, lam, L = problem()
    calls = {"gram": 0, "forward": 0, "adjoint": 0}

    def counted(name):
        def apply(x):
            calls[name] += 1
            return getattr(A, name)(x)

        return apply

    B = LinearOperator(*map(counted, ("forward", "adjoint")), (40,), (20,), counted("gram"))
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solve(
            B, y, lam, step=1 / L, rtol=0, max_steps=13, callback=lambda k, x: seen.append(k)
        )
    assert isinstance(found, Solution)
    assert (found.steps, seen) == (13, list(range(1, 14)))
    assert found.history.shape == (0,)
    assert not found.converged
    assert calls == {"gram": 13, "forward": 0, "adjoint": 1}


@SOLVERS
def test_a_warm_start_saves_steps_and_keeps_the_answer(solve):
    A, y, lam, L = problem(batch=(2,))
    options = {"step": 1 / L, "rtol": 1e-9, "max_steps": 50_000}
    cold = solve(A, y, lam, **options)
    warm = solve(A, y, lam, x0=cold.value, **options)
    assert warm.steps <= 3
    assert torch.allclose(warm.value, cold.value, atol=1e-7)
    shared = solve(A, y, lam, x0=cold.value[0], **options)  # one start for both
    assert torch.allclose(shared.value, cold.value, atol=1e-6)


def test_callback_sees_frozen_elements_at_their_answer():
    A, y, lam, L = problem(batch=(2,))
    y = y * torch.tensor([0.0, 1.0])[:, None]
    seen = []
    found = ista(A, y, lam, step=1 / L, rtol=1e-4, callback=lambda k, x: seen.append(x))
    assert len(seen) == found.steps > 1
    assert all(x.shape == (2, 40) for x in seen)
    assert all(x[0].abs().max() == 0 for x in seen)
    assert torch.equal(seen[-1], found.value)


@SOLVERS
def test_not_converged_is_one_warning_and_a_false_flag(solve):
    A, y, lam, L = problem(batch=(3,))
    y = y * torch.tensor([0.0, 1.0, 1.0])[:, None]
    with pytest.warns(NotConvergedWarning) as caught:
        found = solve(A, y, lam, step=1 / L, rtol=1e-9, max_steps=5)
    assert len(caught) == 1
    assert "2 of 3 did not reach rtol = 1e-09 in 5 steps" in str(caught[0].message)
    assert found.converged.tolist() == [True, False, False]
    assert found.steps == 5


@SOLVERS
def test_gradients_flow_through_a_fixed_number_of_steps(solve):
    M, y, x0 = randn(5, 7), randn(2, 5, seed=1), randn(2, 7, seed=2)
    weights = torch.linspace(0.05, 0.3, 7).double()
    step = torch.tensor(0.04).double()

    def unrolled(M, y, weights, step, x0):
        return solve(matrix(M), y, weights, step=step, x0=x0, max_steps=3, rtol=0).value

    inputs = [u.requires_grad_() for u in (M, y, weights, step, x0)]
    assert torch.autograd.gradcheck(unrolled, inputs)
    (gradient,) = torch.autograd.grad(
        solve(matrix(M), y, weights, step=step, rtol=1e-6, max_steps=5000).value.sum(), weights
    )
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    with pytest.warns(NotConvergedWarning) as caught:
        cut = solve(matrix(M), y, weights, rtol=1e-9, max_steps=2)
    assert len(caught) == 1
    assert not cut.history.requires_grad


def test_gradient_through_a_deconvolution():
    A = blur(randn(3, 3), (8, 8)) @ wavelet_synthesis((8, 8), wavelet="haar", level=2)
    y = randn(8, 8, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: ista(A, y, 0.1, step=0.05, max_steps=3, rtol=0).value, y
    )


@SOLVERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deconvolution_keeps_dtype_shape_and_reaches_its_gap(solve, dtype):
    t = torch.arange(-4, 5).to(dtype)
    kernel = torch.exp(-(t[:, None] ** 2 + t**2) / 2)
    W = wavelet_synthesis((32, 32), wavelet="haar", level=3)
    A = blur(kernel / kernel.sum(), (32, 32)) @ W
    x = torch.zeros(32, 32, dtype=dtype)
    x[8:20, 5:27] = 1
    y = A(W.adjoint(x)) + 0.01 * randn(32, 32, dtype=torch.float64).to(dtype)
    lam = torch.full((1024,), 1e-3, dtype=dtype)
    lam[: math.prod(W.layout[0])] = 0
    found = solve(A, y, lam, max_steps=9000, rtol=2e-6)
    assert found.value.dtype == found.history.dtype == dtype
    gap = lasso_gap(A, y, found.value, lam)
    assert 0 <= gap < 0.02 * lasso_objective(A, y, found.value, lam)
    assert (W(found.value) - x).norm() < 0.7 * (y - x).norm()


# What is refused ---------------------------------------------------------------------------------


@pytest.fixture
def unchecked_types():
    """The messages that users see: annotations are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_types")
@SOLVERS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.eye(3)}, r"A is a Tensor: wrap it, for instance by operators.matrix"),
        ({"y": torch.tensor([1.0, math.nan])}, r"y of shape \(2,\) contains NaN"),
        ({"y": torch.ones(2).long()}, r"y has dtype torch.int64: a floating-point tensor"),
        ({"y": torch.ones(3)}, r"shapes y \(3,\) do not fit an operator from \(3,\) to \(2,\)"),
        ({"y": torch.tensor(1.0)}, r"shapes y \(\) do not fit"),
        ({"y": torch.ones(2).double()}, r"takes torch.float32, got dtype torch.float64"),
        ({"y": torch.ones(2, device="meta")}, r"y is on meta, the operator on cpu"),
        ({"lam": -0.5}, r"lam = -0.5: it must be nonnegative"),
        ({"lam": math.nan}, r"lam = nan"),
        ({"lam": torch.tensor([1.0, -2.0, 0.0])}, r"lam = -2.0: it must be nonnegative"),
        ({"lam": torch.tensor([1.0, math.nan, 0.0])}, r"lam of shape \(3,\) contains NaN"),
        ({"lam": torch.ones(2)}, r"y \(2,\), lam \(2,\) do not fit an operator from \(3,\)"),
        ({"lam": torch.ones(3).double()}, r"lam has dtype torch.float64 on cpu, y has torch.fl"),
        ({"lam": torch.ones(3, device="meta")}, r"lam has dtype torch.float32 on meta, y has"),
        ({"x0": torch.ones(2)}, r"y \(2,\), x \(2,\) do not fit an operator from \(3,\)"),
        ({"x0": torch.full((3,), math.nan)}, r"x of shape \(3,\) contains NaN"),
        ({"x0": torch.ones(4, 3), "y": torch.ones(5, 2)}, r"y \(5, 2\), x \(4, 3\) do not fit"),
        ({"step": 0.0}, r"step = 0.0: a positive number"),
        ({"step": -1.0}, r"step = -1.0: a positive number"),
        ({"step": math.inf}, r"step = inf: a positive number"),
        ({"step": torch.ones(2)}, r"step = tensor\(\[1., 1.\]\): a positive number"),
        ({"lam": torch.ones(0)}, r"lam \(0,\) do not fit an operator from \(3,\)"),
        ({"max_steps": 0}, r"max_steps = 0: a whole number of at least 1"),
        ({"max_steps": 2.5}, r"max_steps = 2.5: a whole number"),
        ({"rtol": -1e-3}, r"rtol = -0.001: it must be nonnegative"),
        ({"rtol": math.nan}, r"rtol = nan"),
    ],
)
def test_bad_input_is_refused_with_its_value(solve, change, message):
    given = {"A": matrix(torch.ones(2, 3)), "y": torch.ones(2), "lam": 0.1, "step": 0.1} | change
    with pytest.raises(ValueError, match=message):
        solve(given.pop("A"), given.pop("y"), given.pop("lam"), **given)


@pytest.mark.usefixtures("unchecked_types")
def test_unknown_momentum_keywords_and_wrong_points_are_refused():
    A, y = matrix(torch.ones(2, 3)), torch.ones(2)
    with pytest.raises(ValueError, match="'heavy-ball': allowed are nesterov, chambolle-dossal"):
        fista(A, y, 0.1, momentum="heavy-ball")
    with pytest.raises(ValueError, match=r"a = 2.0: a number above 2"):
        fista(A, y, 0.1, momentum="chambolle-dossal", a=2.0)
    with pytest.raises(TypeError, match="tolerance"):
        ista(A, y, 0.1, tolerance=1e-3)
    for function in (lasso_objective, lasso_gap):
        with pytest.raises(ValueError, match=r"y \(2,\), x \(4,\) do not fit"):
            function(A, y, torch.ones(4), 0.1)
        with pytest.raises(ValueError, match=r"lam = -0.1"):
            function(A, y, torch.ones(3), -0.1)


@pytest.mark.parametrize("solver", [ista, fista])
def test_divergence_is_never_convergence(solver):
    A = blur(torch.ones(3, 3) / 9, (8, 8))
    with pytest.warns(NotConvergedWarning):
        solution = solver(A, torch.rand(8, 8), 0.1, step=30.0, max_steps=300)
    assert not solution.converged
