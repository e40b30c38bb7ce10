"""Low rank plus sparse: the pursuit and its certificate."""

import math

import pytest
import torch
from low_rank_cases import randn

from tutorial_lib.operators import NotConvergedWarning
from tutorial_lib.robust_pca import (
    low_rank_plus_sparse,
    pursuit_objective,
    shrink_singular_values,
)


def test_shrunk_singular_values_are_the_argmin():
    v, tau = randn(5, 30), 2.0
    L, values = shrink_singular_values(v, tau)
    U, S, Vh = torch.linalg.svd(v, full_matrices=False)
    assert torch.allclose(L, U @ torch.diag((S - tau).clamp(min=0)) @ Vh, atol=1e-8)
    assert torch.allclose(values.flip(0), (S - tau).clamp(min=0), atol=1e-8)

    def F(L):
        return (v - L).square().sum() / 2 + tau * torch.linalg.svdvals(L).sum()

    for seed in range(10):
        for size in (1e-1, 1e-3):
            assert F(L + size * randn(5, 30, seed=seed)) > F(L)


def test_the_pursuit_is_optimal_and_its_gap_true():
    y = randn(8, 40) + 3 * randn(8, 2, seed=1) @ randn(2, 40, seed=2)
    y[randn(8, 40, seed=3) > 1.5] += 20
    tau, lam = 5.0, 1.5
    rough = low_rank_plus_sparse(y, tau=tau, lam=lam, rtol=1e-2)
    exact = low_rank_plus_sparse(y, tau=tau, lam=lam, rtol=1e-10, max_steps=20_000)
    F = lambda p: pursuit_objective(y, p.low_rank, p.sparse, tau=tau, lam=lam)  # noqa: E731
    assert rough.converged and exact.converged and rough.steps < exact.steps
    assert F(exact) <= F(rough) <= F(exact) / (1 - rough.gap) * (1 + 1e-9)
    for seed in range(10):  # nothing near is better
        move = exact._replace(
            low_rank=exact.low_rank + 1e-2 * randn(8, 40, seed=seed),
            sparse=exact.sparse + 1e-2 * randn(8, 40, seed=seed + 50),
        )
        assert F(move) > F(exact)
    r = y - exact.low_rank - exact.sparse  # the conditions of optimality
    assert r.abs().max() <= lam + 1e-6
    assert torch.linalg.svdvals(r)[0] <= tau + 1e-3
    used = exact.sparse != 0
    assert torch.allclose(r[used], lam * exact.sparse[used].sign(), atol=1e-8)
    nuclear = torch.linalg.svdvals(exact.low_rank).sum()
    assert (r * exact.low_rank).sum() == pytest.approx(float(tau * nuclear), rel=1e-4)


def test_a_planted_pair_is_recovered():
    L = randn(20, 2) @ randn(2, 400, seed=1)
    S = torch.where(randn(20, 400, seed=2) > 1.9, 10.0, 0.0).double()
    found = low_rank_plus_sparse(L + S, tau=0.5, lam=0.05, max_steps=5000, rtol=1e-5)
    assert (found.low_rank - L).norm() < 0.05 * L.norm()
    big = found.sparse.abs() > 5
    assert (big == (S > 0)).double().mean() > 0.999


def test_pursuit_refuses_and_warns():
    y = randn(5, 20)
    for options in ({"tau": 0.0}, {"lam": -1.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
            low_rank_plus_sparse(y, **({"tau": 1.0, "lam": 1.0} | options))
    with pytest.raises(ValueError, match="NaN"):
        low_rank_plus_sparse(y * math.nan, tau=1.0, lam=1.0)
    with pytest.warns(NotConvergedWarning, match="after 1 steps"):
        low_rank_plus_sparse(y, tau=0.1, lam=0.1, max_steps=1, rtol=1e-9)
