"""Convolutional coding: the dense matrix, adjoints, minimisers, learning, shifts, refusals."""

import itertools
import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorial_lib.canvas import BOUNDARIES
from tutorial_lib.convolutional import METHODS, conv_dictionary, conv_norm, split_lowpass
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.convolutional_learning import learn_filters, update_filters
from tutorial_lib.convolutional_shifts import average_shifts, shift_coherence, stack_shifts
from tutorial_lib.operators import NotConvergedWarning, matrix
from tutorial_lib.solvers import fista, ista, lasso_gap, lasso_objective

F64 = torch.float64
# maps, channels, kernel, shape, stride: one to three dimensions, shared and unshared, strides that
# divide the kernel and strides that do not
CASES = {
    "1d": (3, 1, (4,), (9,), 1),
    "1d, stride": (3, 2, (5,), (12,), 3),
    "2d": (4, 1, (3, 2), (6, 7), 1),
    "2d, three channels": (5, 3, (3, 3), (5, 6), 1),
    "2d, stride": (6, 1, (3, 4), (6, 8), (3, 2)),
    "2d, channels and stride": (7, 2, (3, 3), (6, 4), 2),
    "3d": (2, 1, (2, 3, 2), (4, 4, 5), 1),
    "3d, stride": (5, 1, (3, 2, 3), (4, 4, 6), (1, 2, 2)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)
each_method = pytest.mark.parametrize("method", METHODS)


def randn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bank(maps, channels, *kernel, seed=0, dtype=F64):
    f = randn(maps, channels, *kernel, seed=seed, dtype=dtype)
    return f / f.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in f.shape[1:]))


def dense(filters, shape, boundary, stride):
    """The matrix of D, entry by entry from the definition of a convolution."""
    d = len(shape)
    strides = (stride,) * d if isinstance(stride, int) else stride
    kernel = filters.shape[2:]
    if boundary == "circular":
        starts = [range(0, n, q) for n, q in zip(shape, strides, strict=True)]
    else:  # from the first that reaches the image, on the grid, to the last
        ahead = (math.ceil((k - 1) / q) * q for k, q in zip(kernel, strides, strict=True))
        starts = [range(-a, n, q) for a, n, q in zip(ahead, shape, strides, strict=True)]
    columns = []
    for atom, start in itertools.product(filters, itertools.product(*starts)):
        image = torch.zeros(filters.shape[1], *shape, dtype=filters.dtype)
        for tap in itertools.product(*map(range, kernel)):
            at = [s + t for s, t in zip(start, tap, strict=True)]
            if boundary == "circular":
                at = [i % n for i, n in zip(at, shape, strict=True)]
            if all(0 <= i < n for i, n in zip(at, shape, strict=True)):
                image[(slice(None), *at)] += atom[(slice(None), *tap)]
        columns.append(image.flatten())
    return torch.stack(columns, 1)


def problem(case, boundary, *, seed=0, dtype=F64):
    maps, channels, kernel, shape, stride = case
    f = bank(maps, channels, *kernel, seed=seed, dtype=dtype)
    where = {"boundary": boundary, "stride": stride}
    return f, randn(channels, *shape, seed=seed + 1, dtype=dtype), where


# The operator ------------------------------------------------------------------------------------


@each_case
@each_boundary
@each_method
def test_equals_the_dense_matrix(case, boundary, method):
    f, y, where = problem(case, boundary)
    M = dense(f, y.shape[1:], **where)
    D = conv_dictionary(f, y.shape[1:], method=method, **where)
    z = randn(2, 3, *D.shape_in)
    assert math.prod(D.shape_in) == M.shape[1]
    assert torch.allclose(D(z).flatten(2), z.flatten(2) @ M.T, atol=1e-12)
    x = randn(2, 3, *D.shape_out)
    assert torch.allclose(D.adjoint(x).flatten(2), x.flatten(2) @ M, atol=1e-12)
    assert torch.allclose(D.gram(z).flatten(2), z.flatten(2) @ (M.T @ M), atol=1e-12)


@each_case
@each_boundary
@each_method
def test_adjoint_and_its_backward(case, boundary, method):
    f, y, where = problem(case, boundary)
    D = conv_dictionary(f, y.shape[1:], method=method, **where)
    z, x = randn(*D.shape_in, seed=3).requires_grad_(), randn(*D.shape_out, seed=4)
    assert torch.isclose((D(z) * x).sum(), (z * D.adjoint(x)).sum())
    (back,) = torch.autograd.grad((D(z) * x).sum(), z)
    assert torch.allclose(back, D.adjoint(x))


@each_boundary
@each_method
@pytest.mark.parametrize("stride", [1, 2])
def test_differentiable_in_the_filters(boundary, method, stride):
    where = {"boundary": boundary, "stride": stride}
    z = randn(2, *conv_dictionary(randn(2, 1, 3, 3), (4, 4), **where).shape_in)

    def image(f):
        D = conv_dictionary(f, (4, 4), method=method, **where)
        return D(z), D.adjoint(D(z))

    assert torch.autograd.gradcheck(image, randn(2, 1, 3, 3, seed=1).requires_grad_())


@each_method
def test_circular_dictionary_moves_with_the_maps(method):
    D = conv_dictionary(bank(3, 2, 4, 4), (8, 12), stride=(2, 3), method=method)
    z = randn(*D.shape_in)
    assert torch.allclose(D(z.roll((1, -2), (-2, -1))), D(z).roll((2, -6), (-2, -1)))


def test_shared_maps_and_maps_that_slide_along_the_spectrum():
    """Four bands as channels of an image, or as one channel of a cube."""
    cube = randn(4, 6, 6)
    shared = conv_dictionary(bank(5, 4, 3, 3), (6, 6))
    assert (shared.shape_in, shared.shape_out) == ((5, 6, 6), (4, 6, 6))
    unshared = conv_dictionary(bank(5, 1, 3, 3, 3), (4, 6, 6))
    assert (unshared.shape_in, unshared.shape_out) == ((5, 4, 6, 6), (1, 4, 6, 6))
    z = randn(5, 6, 6, seed=2)
    for b in range(4):  # each band of the shared model: its own filters, the same maps
        f = bank(5, 4, 3, 3)
        band = conv_dictionary(f[:, b : b + 1], (6, 6))
        assert torch.allclose(shared(z)[b], band(z)[0])
    assert shared.adjoint(cube).shape == (5, 6, 6)
    assert unshared.adjoint(cube[None]).shape == (5, 4, 6, 6)


@each_case
@each_boundary
def test_norm_at_the_actual_size(case, boundary):
    f, y, where = problem(case, boundary)
    true = torch.linalg.matrix_norm(dense(f, y.shape[1:], **where), 2).item()
    norm = conv_norm(f, y.shape[1:], **where)
    if boundary == "circular":
        assert norm == pytest.approx(true, rel=1e-10)
    else:
        assert 0.99 * true <= norm <= true * (1 + 1e-10)


def test_norm_depends_on_size_and_boundary():
    f = bank(4, 1, 5, 5)
    circular = [conv_norm(f, (n, n)) for n in (5, 7, 32)]
    assert len({round(n, 6) for n in circular}) == 3
    assert conv_norm(f, (8, 8), boundary="padded", rtol=1e-6) < conv_norm(f, (32, 32)) * 1.01


def test_coherence_is_that_of_the_matrix():
    f = 3 * bank(3, 2, 4, 3)
    for stride in (1, 2, (4, 3), (2, 1)):
        q = (stride,) * 2 if isinstance(stride, int) else stride
        M = dense(f / 3, (8, 12) if q[1] > 1 else (8, 9), "circular", stride)
        gram = (M.T @ M).abs()
        gram.fill_diagonal_(0)
        assert shift_coherence(f, stride=stride) == pytest.approx(gram.max().item(), abs=1e-12)


# Coding ------------------------------------------------------------------------------------------


@each_case
@each_boundary
def test_admm_solves_the_dense_lasso(case, boundary):
    f, y, where = problem(case, boundary)
    coding = csc_admm(y, f, 0.3, rtol=1e-9, max_steps=20_000, **where)
    assert coding.converged and coding.gap <= 1e-9
    M = matrix(dense(f, y.shape[1:], **where))
    flat = coding.value.flatten()
    best = fista(M, y.flatten(), 0.3, rtol=1e-12, max_steps=100_000).value
    least = lasso_objective(M, y.flatten(), best, 0.3)
    assert lasso_objective(M, y.flatten(), flat, 0.3) == pytest.approx(least.item(), rel=2e-9)
    # Karush, Kuhn and Tucker: the correlation of the residual is lam on the support, less off it
    c = M.adjoint(y.flatten() - M(flat))
    on = flat.abs() > 1e-3
    assert c.abs().max() <= 0.3 * (1 + 1e-3)
    assert torch.allclose(c[on], 0.3 * flat[on].sign(), atol=1e-3)


@each_boundary
@each_method
@pytest.mark.parametrize("solver", [ista, fista])
def test_ista_and_fista_agree_with_admm(boundary, method, solver):
    f, y, where = problem(CASES["2d, stride"], boundary)
    D = conv_dictionary(f, y.shape[1:], method=method, **where)
    step = 0.98 / conv_norm(f, y.shape[1:], **where) ** 2
    z = solver(D, y, 0.3, step=step, rtol=1e-9, max_steps=100_000).value
    assert lasso_gap(D, y, z, 0.3) < 1e-6
    other = csc_admm(y, f, 0.3, rtol=1e-9, max_steps=20_000, **where).value
    F = lasso_objective(D, y, torch.stack([z, other]), 0.3)
    assert torch.isclose(F[0], F[1], rtol=1e-7)


def test_weights_of_maps_and_entries():
    f, y, where = problem(CASES["2d"], "circular")
    lam = torch.tensor([0.0, 0.1, 0.3, 9.0], dtype=F64).reshape(-1, 1, 1)
    coding = csc_admm(y, f, lam, rtol=0, max_steps=3000, **where)
    assert (coding.value[0] != 0).all() and (coding.value[3] == 0).all()
    D = conv_dictionary(f, (6, 7), **where)
    assert lasso_gap(D, y, coding.value, lam) < 1e-2
    single = csc_admm(y, f, lam.expand(4, 6, 7), rtol=0, max_steps=3000, **where)
    assert torch.allclose(single.value, coding.value)


def test_a_batch_is_solved_as_if_each_were_alone():
    f = bank(4, 1, 3, 3)
    y = randn(2, 2, 1, 8, 8) * torch.tensor([1.0, 5.0, 0.3, 0.0], dtype=F64).reshape(2, 2, 1, 1, 1)
    lam = torch.tensor([0.1, 0.5, 0.2, 0.3], dtype=F64).reshape(2, 2, 1, 1, 1)
    for boundary in BOUNDARIES:
        options = {"boundary": boundary, "rtol": 1e-4, "max_steps": 2000}
        together = csc_admm(y, f, lam, **options)
        assert together.converged.shape == (2, 2) and together.converged.all()
        for i, j in itertools.product(range(2), range(2)):
            alone = csc_admm(y[i, j], f, lam[i, j], **options)
            assert torch.allclose(together.value[i, j], alone.value, atol=1e-10)
            assert torch.isclose(together.rho[i, j], alone.rho)
        assert (together.value[1, 1] == 0).all()


@each_boundary
def test_penalty_adapts(boundary):
    """In float32; and a wrong penalty finds its way back."""
    f, y = bank(8, 1, 5, 5, dtype=torch.float32), randn(1, 24, 24, dtype=torch.float32)
    coding = csc_admm(y, f, 0.2, boundary=boundary, rtol=3e-3, max_steps=300)
    assert coding.converged and coding.value.dtype == torch.float32
    wrong_rho = csc_admm(y, f, 0.2, boundary=boundary, rtol=3e-3, rho=200.0, max_steps=400)
    assert wrong_rho.converged and wrong_rho.rho < 20


def test_options_have_an_effect():
    f, y = bank(8, 1, 5, 5), randn(1, 24, 24)
    D = conv_dictionary(f, (24, 24))

    def after(**options):
        z = csc_admm(y, f, 0.2, rtol=0, max_steps=40, **options).value
        return lasso_objective(D, y, z, 0.2).item()

    best = csc_admm(y, f, 0.2, rtol=1e-8, max_steps=5000)
    least = lasso_objective(D, y, best.value, 0.2).item()
    assert after() - least < (after(relax=1.0) - least) / 2
    assert after(rho=100.0) - least < (after(rho=100.0, adapt=False) - least) / 10
    warm = csc_admm(y, f, 0.2, z0=best.value, rho=float(best.rho), rtol=1e-7, max_steps=10)
    assert warm.converged and warm.steps == 10
    nothing = csc_admm(y, f, 0.2, rtol=0, max_steps=40)
    assert nothing.gap.isnan() and not nothing.converged


def test_callback_sees_each_step():
    f, y = bank(3, 1, 3), randn(2, 1, 12)
    seen = []
    coding = csc_admm(
        y, f, 0.2, rtol=0, max_steps=7, callback=lambda k, z: seen.append((k, z.clone()))
    )
    assert [k for k, _ in seen] == list(range(1, 8))
    assert torch.equal(seen[-1][1], coding.value)


def test_warns_when_it_has_not_arrived():
    f, y = bank(8, 1, 5, 5), randn(1, 24, 24)
    with pytest.warns(NotConvergedWarning, match="1 of 1 did not reach rtol = 1e-08 in 10 steps"):
        coding = csc_admm(y, f, 0.2, rtol=1e-8, max_steps=10)
    assert not coding.converged and coding.gap > 1e-8


def test_large_lambda_gives_zero():
    f, y = bank(8, 1, 5, 5), randn(1, 24, 24)
    top = conv_dictionary(f, (24, 24)).adjoint(y).abs().max().item()
    assert (csc_admm(y, f, 1.001 * top).value == 0).all()
    assert (csc_admm(y, f, 0.999 * top, rtol=1e-8, max_steps=2000).value != 0).any()


def test_planted_code_is_found():
    """Few atoms far apart: the support is exact, the values lose what the threshold takes."""
    f = bank(6, 1, 7, 7)
    D = conv_dictionary(f, (48, 48))
    z = torch.zeros(D.shape_in, dtype=F64)
    for i, (r, c) in enumerate(itertools.product(range(4, 48, 16), repeat=2)):
        z[i % 6, r, c] = 1.0 + i / 10
    found = csc_admm(D(z), f, 0.01, rtol=1e-7, max_steps=3000).value
    assert torch.equal(found.abs() > 0.5, z != 0)
    assert (found - z).abs().max() < 0.05


# Learning ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(list(CASES.values())),
    st.sampled_from(BOUNDARIES),
    st.sampled_from([torch.float32, F64]),
)
def test_update_never_raises_the_error(seed, case, boundary, dtype):
    f, _, where = problem(case, boundary, seed=seed, dtype=dtype)
    shape = case[3]
    D = conv_dictionary(f, shape, **where)
    z = randn(3, *D.shape_in, seed=seed + 2, dtype=dtype)
    z = z * (randn(3, *D.shape_in, seed=seed + 3) > 1)
    y = randn(3, *D.shape_out, seed=seed + 4, dtype=dtype)
    before = (y - D(z)).square().sum()
    for steps in (1, 5):
        new = update_filters(y, z, f, steps=steps, **where)
        after = (y - conv_dictionary(new, shape, **where)(z)).square().sum()
        assert after <= before * (1 + 1e-5)
        assert new.flatten(1).norm(dim=1).max() <= 1 + 1e-5
        assert new.dtype == dtype


@each_case
@each_boundary
def test_update_finds_the_filters_behind_the_images(case, boundary):
    true, _, where = problem(case, boundary, seed=1)
    D = conv_dictionary(true, case[3], **where)
    z = randn(40, *D.shape_in, seed=2)
    found = update_filters(D(z), z, torch.zeros_like(true), steps=800, **where)
    assert torch.allclose(found, true, atol=1e-4)


def test_learned_filters_beat_random_ones():
    true = bank(4, 1, 5, 5, seed=9)
    z = randn(6, 4, 24, 24, seed=2) * (randn(6, 4, 24, 24, seed=3) > 2.2)
    y = conv_dictionary(true, (24, 24))(z)
    learned = learn_filters(y, bank(4, 1, 5, 5, seed=4), 0.1, steps=40)
    assert learned.history.shape == (40,)
    assert learned.history[-1] < 0.8 * learned.history[0]
    D = conv_dictionary(learned.filters, (24, 24))
    assert learned.codes.shape == (6, *D.shape_in)
    last = lasso_objective(D, y, learned.codes, 0.1).sum()
    assert torch.isclose(learned.history[-1], last)
    truth = csc_admm(y, true, 0.1, rtol=1e-4, max_steps=2000).value
    floor = lasso_objective(conv_dictionary(true, (24, 24)), y, truth, 0.1).sum()
    assert last < 1.5 * floor


# Formulas of the chapter -------------------------------------------------------------------------


def test_rank_one_solve():
    """(5): the first line of ADMM, frequency by frequency, against the dense system."""
    f, y, rho = bank(3, 1, 3, 2), randn(1, 4, 5), 0.7
    M = dense(f, (4, 5), "circular", 1)
    v = randn(3, 4, 5, seed=5)
    right = M.T @ y.flatten() + rho * v.flatten()
    x = torch.linalg.solve(M.T @ M + rho * torch.eye(60, dtype=F64), right)
    d, V, Y = (torch.fft.rfft2(t, s=(4, 5)) for t in (f[:, 0], v, y))
    c = (Y - (d * V).sum(0)) / (rho + d.abs().square().sum(0))
    assert torch.allclose(torch.fft.irfft2(V + d.conj() * c, s=(4, 5)).flatten(), x)


@pytest.mark.parametrize("case", [CASES["2d, channels and stride"], CASES["3d"]])
@each_boundary
def test_admm_is_its_three_lines(case, boundary):
    """(4), with dense matrices; where padded, with the unseen samples filled in."""
    f, y, where = problem(case, boundary)
    lam, rho = 0.3, 2.0
    M = dense(f, y.shape[1:], **where)
    if boundary == "circular":
        inverse = torch.linalg.inv(M.T @ M + rho * torch.eye(M.shape[1], dtype=F64))
        z = u = torch.zeros(M.shape[1], dtype=F64)
        for _ in range(8):
            x = inverse @ (M.T @ y.flatten() + rho * (z - u))
            z = torch.nn.functional.softshrink(x + u, lam / rho)
            u = u + x - z
        steps = {"rho": rho, "relax": 1.0, "adapt": False, "max_steps": 8, "rtol": 0}
        assert torch.allclose(csc_admm(y, f, lam, **steps, **where).value.flatten(), z)
    else:  # the same fixed point, by another way
        best = csc_admm(y, f, lam, rtol=1e-10, max_steps=30_000, **where).value
        steps = {"rho": rho, "relax": 1.0, "adapt": False, "max_steps": 20, "rtol": 0}
        stays = csc_admm(y, f, lam, z0=best, **steps, **where).value
        assert torch.allclose(stays, best, atol=1e-3)


@pytest.mark.parametrize("rho, bounded", [(2.0, False), (500.0, True)])
def test_penalty_rule(rho, bounded):
    """(6), after the first ten steps, with dense matrices; and its bound 1 + (30 / k)^2."""
    f, y = bank(3, 1, 3, 2), randn(1, 6, 5)
    M = dense(f, (6, 5), "circular", 1)
    inverse = torch.linalg.inv(M.T @ M + rho * torch.eye(90, dtype=F64))
    z = u = torch.zeros(90, dtype=F64)
    for _ in range(10):
        x = inverse @ (M.T @ y.flatten() + rho * (z - u))
        old, relaxed = z, 1.8 * x - 0.8 * z
        z = torch.nn.functional.softshrink(relaxed + u, 0.1 / rho)
        u = u + relaxed - z
    primal = (x - z).norm() / torch.maximum(x.norm(), z.norm())
    dual = (z - old).norm() / u.norm()
    factor = (primal / dual).sqrt()
    assert bool((factor - 1).abs() > 0.05)
    assert (not 0.1 <= factor <= 10) == bounded
    after = csc_admm(y, f, 0.1, rho=rho, max_steps=11, rtol=0).rho
    assert torch.isclose(after, rho * factor.clamp(0.1, 10))
    still = csc_admm(y, f, 0.1, rho=rho, max_steps=10, rtol=0).rho
    assert still == rho


def test_gradient_of_the_filters_is_a_correlation():
    """(8): the first 3 x 2 lags of the correlation of maps and residual."""
    f, y, z = bank(3, 1, 3, 2).requires_grad_(), randn(1, 4, 5), randn(3, 4, 5, seed=7)
    r = conv_dictionary(f, (4, 5))(z) - y
    (right,) = torch.autograd.grad(r.square().sum() / 2, f)
    lags = torch.fft.irfft2(torch.fft.rfft2(z).conj() * torch.fft.rfft2(r.detach()), s=(4, 5))
    assert torch.allclose(lags[:, None, :3, :2], right)


# Around the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9,), (6, 7), (1, 5), (4, 5, 6)])
def test_lowpass_is_the_minimiser(shape):
    d = len(shape)
    y = randn(2, *shape)
    low, high = split_lowpass(y, 3.0, dims=d)
    assert torch.allclose(low + high, y)
    x = low.clone().requires_grad_()
    F = (y - x).square().sum() / 2
    for axis in range(-d, 0):
        F = F + 3.0 / 2 * x.diff(dim=axis).square().sum()
    assert torch.autograd.grad(F, x)[0].abs().max() < 1e-12
    assert torch.allclose(low.flatten(1).mean(1), y.flatten(1).mean(1))


@each_boundary
@pytest.mark.parametrize("stride, shape", [(3, (7, 8)), ((2, 3), (5, 6)), ((1, 2, 2), (3, 4, 5))])
def test_average_undoes_stack(boundary, stride, shape):
    y = randn(2, 1, *shape)
    stack = stack_shifts(y, stride, dims=len(shape), boundary=boundary)
    count = math.prod(stride) if isinstance(stride, tuple) else stride ** len(shape)
    assert len(stack) == count
    assert torch.allclose(average_shifts(stack, stride, shape, boundary=boundary), y)


def test_reflection_continues_the_image():
    stack = stack_shifts(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 2, dims=1, boundary="padded")
    assert stack[:, 0].tolist() == [[1, 2, 3, 4, 3, 2], [2, 1, 2, 3, 4, 3]]


def test_averaged_estimate_moves_with_the_image():
    """One strided code does not; the mean over all shifts does."""
    f = bank(6, 1, 4, 4)

    def estimate(y):
        z = csc_admm(y, f, 0.2, stride=2, rtol=1e-9, max_steps=5000).value
        return conv_dictionary(f, (8, 8), stride=2)(z)

    def averaged(y):
        return average_shifts(estimate(stack_shifts(y, 2)), 2, (8, 8))

    y = randn(1, 8, 8)
    moved = y.roll((1, 3), (-2, -1))
    assert torch.allclose(averaged(moved), averaged(y).roll((1, 3), (-2, -1)), atol=1e-4)
    assert (estimate(moved) - estimate(y).roll((1, 3), (-2, -1))).abs().max() > 0.1


# Refusals ----------------------------------------------------------------------------------------

FILTERS, IMAGE = bank(2, 1, 3, 3), randn(1, 8, 8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: conv_dictionary(FILTERS, (8,)), r"2 kernel axes, images of shape \(8,\)"),
        (lambda: conv_dictionary(FILTERS, (2, 8)), r"kernel \(3, 3\) is larger than .* \(2, 8\)"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=3), r"no multiple of stride 3"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=4), r"stride = 4: above the kernel"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=0), r"stride = 0"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=(1, 2, 1)), r"stride = \(1, 2, 1\)"),
        (lambda: conv_dictionary(FILTERS[0, 0], (8, 8)), r"filters of shape \(3, 3\)"),
        (lambda: conv_dictionary(FILTERS * math.nan, (8, 8)), "filters .*NaN"),
        (lambda: conv_norm(FILTERS, (8, 8), boundary="padded", rtol=0.0), r"rtol = 0.0"),
        (lambda: shift_coherence(0 * FILTERS), r"filter 0 is zero"),
        (lambda: csc_admm(IMAGE, FILTERS, -1.0), r"lam = -1.0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, rho=0.0), r"rho = 0.0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, relax=2.0), r"relax = 2.0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, max_steps=0), r"max_steps = 0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, rtol=-1.0), r"rtol = -1.0"),
        (lambda: csc_admm(IMAGE[0], FILTERS, 0.1), r"\(8, 8\).*channels"),
        (lambda: csc_admm(IMAGE.float(), FILTERS, 0.1), r"float32"),
        (lambda: csc_admm(IMAGE * math.nan, FILTERS, 0.1), r"y .*NaN"),
        (lambda: csc_admm(IMAGE.expand(2, 8, 8), FILTERS, 0.1), r"do not fit"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, z0=randn(2, 7, 8)), r"do not fit"),
        (lambda: update_filters(IMAGE, randn(2, 8, 8), FILTERS, steps=0), r"steps = 0"),
        (lambda: update_filters(IMAGE, randn(3, 8, 8), FILTERS), r"do not fit"),
        (lambda: learn_filters(IMAGE, FILTERS, 0.1, steps=0), r"steps = 0"),
        (lambda: split_lowpass(IMAGE, -1.0), r"weight = -1.0"),
        (lambda: split_lowpass(IMAGE, dims=4), r"dims = 4"),
        (lambda: stack_shifts(IMAGE, 8, boundary="padded"), r"stride = 8.*too small"),
        (lambda: average_shifts(IMAGE, 2, (8, 8)), r"\(1, 8, 8\): \(4, \.\.\., \(8, 8\)\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_words():
    for call in (
        lambda: conv_dictionary(FILTERS, (8, 8), boundary="mirror"),
        lambda: conv_dictionary(FILTERS, (8, 8), method="dense"),
        lambda: stack_shifts(IMAGE, 2, boundary="mirror"),
        lambda: average_shifts(IMAGE, 1, (8, 8), boundary="mirror"),
    ):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            with pytest.raises(ValueError, match="unknown .*: allowed are"):
                call()
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)
    with pytest.raises(TypeError):
        csc_admm(IMAGE, FILTERS, 0.1, max_iter=10)
