"""Convolutional coding: minimisers of the dense problem, the steps of ADMM, options."""

import itertools

import pytest
import torch
from convolutional_cases import (
    CASES,
    F64,
    bank,
    dense,
    each_boundary,
    each_case,
    each_method,
    problem,
    randn,
)

from tutorial_lib.canvas import BOUNDARIES
from tutorial_lib.convolutional import conv_dictionary, conv_norm
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.operators import NotConvergedWarning, matrix
from tutorial_lib.solvers import fista, ista, lasso_gap, lasso_objective

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
