"""OMP and the lasso: scikit-learn's answers, certificates, theorems, clear refusals."""

import itertools
import math
import warnings

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, orthogonal_mp

from tutorial_lib import sparse_coding
from tutorial_lib.dictionary import dct_dictionary
from tutorial_lib.operators import NotConvergedWarning, matrix
from tutorial_lib.solvers import fista, lasso_gap, lasso_objective
from tutorial_lib.sparse_coding import coherence, lasso, lasso_kkt, omp

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(n, k, *, seed=0, dtype=torch.float64):
    D = randn(n, k, seed=seed, dtype=dtype)
    return D / D.norm(dim=0)


def sklearn_omp(Y, D, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stops early on dependent atoms
        codes = orthogonal_mp(D.numpy(), Y.mT.numpy(), **options)
    return torch.from_numpy(codes).mT.reshape(len(Y), -1).to(D)


# OMP ---------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("s", [1, 5, 12])
def test_omp_finds_the_support_and_values_of_scikit_learn(dtype, s):
    D, Y = unit(30, 80, dtype=dtype), randn(400, 30, seed=1, dtype=dtype)
    ours = omp(Y, D, n_nonzero_coefs=s)
    # In float64: in float32 scikit-learn takes an atom for dependent, and stops, too early.
    theirs = sklearn_omp(Y.double(), D.double(), n_nonzero_coefs=s).to(dtype)
    assert torch.equal(ours != 0, theirs != 0)
    assert ((ours != 0).sum(1) == s).all()
    assert torch.allclose(ours, theirs, atol=1e-10 if dtype == torch.float64 else 1e-4)


@DTYPES
def test_omp_with_a_tolerance_is_that_of_scikit_learn(dtype):
    D, Y = unit(30, 80, dtype=dtype), randn(300, 30, seed=2, dtype=dtype)
    tol = 4.0  # the signals have energies of about 30
    ours, theirs = omp(Y, D, tol=tol), sklearn_omp(Y, D, tol=tol)
    assert torch.equal(ours != 0, theirs != 0)
    assert len((ours != 0).sum(1).unique()) > 5  # signals stop at different times
    assert ((Y - ours @ D.mT).square().sum(1) <= tol * (1 + 1e-5)).all()


def test_a_signal_below_the_tolerance_gets_no_atom():
    D, Y = unit(6, 9), randn(5, 6, seed=1)
    codes = omp(Y, D, tol=float(Y.square().sum(1).max()))
    assert (codes == 0).all()
    assert (omp(torch.zeros(2, 6).double(), D, n_nonzero_coefs=3) == 0).all()


def test_both_limits_together():
    D, Y = unit(20, 40), randn(50, 20, seed=3)
    free, bounded = omp(Y, D, tol=2.0), omp(Y, D, tol=2.0, n_nonzero_coefs=6)
    short = (free != 0).sum(1) <= 6
    assert 0 < short.sum() < 50
    assert torch.allclose(free[short], bounded[short])
    assert ((bounded[~short] != 0).sum(1) == 6).all()


def test_more_atoms_than_the_first_allocation():
    """The Cholesky factors start with room for eight atoms."""
    D, Y = unit(40, 60), randn(20, 40, seed=4)
    theirs = sklearn_omp(Y, D, n_nonzero_coefs=30)
    assert torch.allclose(omp(Y, D, n_nonzero_coefs=30), theirs, atol=1e-8)
    full = omp(Y, D, tol=0.0)  # until nothing is left
    assert torch.allclose(full @ D.mT, Y, atol=1e-12)


@given(st.integers(0, 10_000))
def test_residual_is_orthogonal_to_the_support_and_falls(seed):
    D, y = unit(8, 20, seed=seed), randn(8, seed=seed + 1)
    before = math.inf
    for s in range(1, 8):
        code = omp(y, D, n_nonzero_coefs=s)
        r = y - D @ code
        assert (D[:, code != 0].mT @ r).abs().max() < 1e-9
        assert r.norm() < before + 1e-12
        before = r.norm()


def test_codes_below_tropps_bound_are_found():
    """The union of spikes and cosines: fewer than (1 + 1/mu)/2 atoms are always found."""
    n = 64
    i = torch.arange(n).double()
    C = torch.cos(math.pi * (i[:, None] + 0.5) * i / n)
    D = torch.cat([C / C.norm(dim=0), torch.eye(n).double()], 1)
    bound = (1 + 1 / coherence(D)) / 2
    assert 3 < bound < 4
    for seed in range(20):
        place = torch.randperm(2 * n, generator=torch.Generator().manual_seed(seed))[:3]
        code = torch.zeros(2 * n).double()
        code[place] = randn(3, seed=seed)
        assert torch.allclose(omp(D @ code, D, n_nonzero_coefs=3), code, atol=1e-9)


def test_greedy_is_not_optimal_and_never_better_than_all_supports():
    D, Y = unit(6, 9), randn(60, 6, seed=5)
    error = (Y - omp(Y, D, n_nonzero_coefs=3) @ D.mT).square().sum(1)
    best = torch.full((60,), math.inf).double()
    for S in itertools.combinations(range(9), 3):
        Q = torch.linalg.qr(D[:, S])[0]
        best = torch.minimum(best, (Y - Y @ Q @ Q.mT).square().sum(1))
    assert (error >= best - 1e-12).all()
    assert (error > best + 1e-6).any()


def test_dependent_atoms_end_the_search():
    D = torch.eye(3).double()[:, [0, 0, 1]]  # two equal atoms, a third; e_2 out of reach
    code = omp(torch.tensor([3.0, 2.0, 1.0]).double(), D, n_nonzero_coefs=3)
    assert torch.allclose(D @ code, torch.tensor([3.0, 2.0, 0.0]).double())
    assert code.isfinite().all()


def test_batch_axes_blocks_and_gram_change_nothing(monkeypatch):
    D, Y = unit(10, 25), randn(4, 6, 10, seed=6)
    codes = omp(Y, D, n_nonzero_coefs=4)
    assert codes.shape == (4, 6, 25)
    assert torch.allclose(codes[2, 3], omp(Y[2, 3], D, n_nonzero_coefs=4))
    assert torch.allclose(codes, omp(Y, D, n_nonzero_coefs=4, gram=D.mT @ D))
    monkeypatch.setattr(sparse_coding, "BLOCK", 25 * 7)  # seven signals at a time
    assert torch.allclose(codes, omp(Y, D, n_nonzero_coefs=4))
    assert omp(Y[:0], D, n_nonzero_coefs=4).shape == (0, 6, 25)


# Lasso -------------------------------------------------------------------------------------------


def test_lasso_is_that_of_scikit_learn():
    D, Y, lam = unit(20, 50), randn(10, 20, seed=7), 0.3
    coding = lasso(Y, D, lam, rtol=1e-12, max_steps=50_000)
    for y, code in zip(Y, coding.codes, strict=True):
        theirs = Lasso(alpha=lam / 20, fit_intercept=False, tol=1e-10, max_iter=10**6)
        theirs.fit(D.numpy(), y.numpy())
        assert torch.allclose(code, torch.from_numpy(theirs.coef_), atol=1e-5)


@DTYPES
def test_lasso_is_certified(dtype):
    D, Y, lam = unit(20, 50, dtype=dtype), randn(3, 40, 20, seed=8, dtype=dtype), 0.2
    coding = lasso(Y, D, lam)
    assert coding.converged.all() and coding.converged.shape == (3, 40)
    gap = lasso_gap(matrix(D), Y, coding.codes, lam)
    assert torch.allclose(gap, coding.gap, rtol=0.1, atol=1e-6)
    assert (gap <= 1.01e-5 * Y.square().sum(-1) / 2).all()
    best = fista(matrix(D.double()), Y.double(), lam, rtol=1e-12, max_steps=10**5).value
    above = lasso_objective(matrix(D.double()), Y.double(), coding.codes.double(), lam)
    above = above - lasso_objective(matrix(D.double()), Y.double(), best, lam)
    assert (above <= coding.gap + 1e-6).all()
    assert lasso_kkt(Y, D, coding.codes, lam).max() < 0.05


def test_kkt_is_zero_at_the_minimiser_only():
    D, Y, lam = unit(20, 50), randn(10, 20, seed=9), 0.3
    codes = lasso(Y, D, lam, rtol=1e-13, max_steps=50_000).codes
    assert lasso_kkt(Y, D, codes, lam).max() < 1e-5
    assert (lasso_kkt(Y, D, codes, 1.1 * lam) > 0.01).all()
    assert (lasso_kkt(Y, D, 0.9 * codes, lam) > 0.01).all()
    moved = codes.clone()
    moved[:, 0] += 0.1
    assert (lasso_kkt(Y, D, moved, lam) > 0.01).all()


def test_signals_are_solved_as_if_alone():
    D, Y = unit(12, 30), randn(20, 12, seed=10) * torch.logspace(-2, 2, 20).double()[:, None]
    together = lasso(Y, D, 0.1, rtol=1e-8)
    alone = [lasso(y, D, 0.1, rtol=1e-8) for y in Y]
    assert torch.allclose(together.codes, torch.stack([a.codes for a in alone]), atol=1e-9)
    assert together.steps == max(a.steps for a in alone) > min(a.steps for a in alone)


def test_zero_from_the_largest_correlation_on():
    D, y = unit(12, 30), randn(12, seed=11)
    largest = float((y @ D).abs().max())
    assert (lasso(y, D, largest * 1.0001).codes == 0).all()
    assert (lasso(y, D, 0.95 * largest).codes != 0).sum() >= 1


def test_not_converged_is_a_warning_and_not_a_claim():
    D, Y = unit(12, 30), randn(4, 12, seed=12)
    with pytest.warns(NotConvergedWarning, match=r"4 of 4 signals did not reach rtol = 1e-09 in 3"):
        coding = lasso(Y, D, 0.01, rtol=1e-9, max_steps=3)
    assert not coding.converged.any() and coding.steps == 3
    assert torch.allclose(coding.gap, lasso_gap(matrix(D), Y, coding.codes, 0.01))


# Coherence ---------------------------------------------------------------------------------------


def test_coherence():
    D = unit(10, 30)
    direct = max(abs(float(D[:, i] @ D[:, j])) for i in range(30) for j in range(i))
    assert coherence(D).item() == pytest.approx(direct)
    assert coherence(D * torch.rand(30).double().add(0.1)).item() == pytest.approx(direct)
    assert coherence(D) >= math.sqrt(20 / (10 * 29))  # Welch
    assert coherence(dct_dictionary(8, 8)) < 1e-6


# Refusals ----------------------------------------------------------------------------------------


@pytest.fixture
def unchecked():
    """Without the run-time type checks, which no user has."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"signals": torch.full((2, 4), math.nan)}, r"signals of shape \(2, 4\) contains NaN"),
        ({"dictionary": torch.full((4, 6), math.nan)}, "dictionary of shape .* contains NaN"),
        ({"signals": torch.zeros(2, 5)}, r"signals \(2, 5\) and dictionary \(4, 6\) do not fit"),
        ({"signals": torch.zeros(2, 4).double()}, "signals have torch.float64 on cpu"),
        ({"n_nonzero_coefs": 5}, "n_nonzero_coefs = 5: 1 to 4 are allowed"),
        ({"n_nonzero_coefs": 0}, "n_nonzero_coefs = 0"),
        ({"tol": -1.0}, "tol = -1.0: it must be nonnegative"),
        ({"tol": math.nan}, "tol = nan"),
        ({"n_nonzero_coefs": None}, "one of n_nonzero_coefs and tol is needed"),
        ({"dictionary": 2 * unit(4, 6).float()}, "atom 0 of the dictionary has length 2"),
        ({"gram": torch.eye(5)}, r"gram of shape \(5, 5\).*: \(6, 6\) and torch.float32"),
    ],
)
def test_omp_refuses(change, message, unchecked):
    arguments = {"signals": torch.ones(2, 4), "dictionary": unit(4, 6).float()}
    arguments |= {"n_nonzero_coefs": 2, **change}
    signals, dictionary = arguments.pop("signals"), arguments.pop("dictionary")
    with pytest.raises(ValueError, match=message):
        omp(signals, dictionary, **arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lam": -0.1}, "lam = -0.1: it must be nonnegative"),
        ({"lam": math.nan}, "lam = nan"),
        ({"rtol": 0.0}, "rtol = 0.0: a positive number"),
        ({"max_steps": 0}, "max_steps = 0: at least 1"),
        ({"signals": torch.full((2, 4), math.nan)}, "contains NaN"),
        ({"signals": torch.zeros(2, 5)}, "do not fit"),
    ],
)
def test_lasso_refuses(change, message, unchecked):
    arguments = {"signals": torch.ones(2, 4), "dictionary": unit(4, 6).float(), "lam": 0.1}
    arguments |= change
    signals, dictionary, lam = (arguments.pop(name) for name in ("signals", "dictionary", "lam"))
    with pytest.raises(ValueError, match=message):
        lasso(signals, dictionary, lam, **arguments)


def test_certificates_refuse(unchecked):
    D, y = unit(4, 6), torch.ones(4).double()
    with pytest.raises(ValueError, match=r"codes of shape \(5,\).*: \(6,\)"):
        lasso_kkt(y, D, torch.zeros(5).double(), 0.1)
    with pytest.raises(ValueError, match="lam = -1"):
        lasso_kkt(y, D, torch.zeros(6).double(), -1.0)
    with pytest.raises(ValueError, match=r"\(4, 1\): \(n, k\), k >= 2"):
        coherence(D[:, :1])
    with pytest.raises(ValueError, match="atom 2 of the dictionary is zero"):
        coherence(D * torch.tensor([1.0, 1, 0, 1, 1, 1]).double())
    with pytest.raises(TypeError, match="n_nonzero"):
        omp(y, D, n_nonzero=2)
