"""Sparse codes of photographs' patches: OMP with five atoms, the lasso at lambda = 0.1."""

import math
import warnings
from functools import partial

import numpy as np
import torch

from tutorial_lib.data import photographs
from tutorial_lib.dictionary import extract_patches
from tutorial_lib.operators import matrix
from tutorial_lib.solvers import lasso_gap
from tutorial_lib.sparse_coding import lasso, omp

from .runner import Case, Entry

ATOMS, NONZEROS, LAM = 256, 5, 0.1


def patches(count):
    """8 x 8, without their mean, of length one, in float64."""
    x = extract_patches(photographs(size=256), size=8, stride=3).flatten(0, 1).double()
    x = x - x.mean(1, keepdim=True)
    x = x[x.norm(dim=1) > 0.1]
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]]
    return x / x.norm(dim=1, keepdim=True)


ALL = patches(5000 + ATOMS)
SIGNALS, DICTIONARY = ALL[ATOMS:], ALL[:ATOMS].mT.contiguous()


def scikit_omp(dtype):
    from sklearn.linear_model import orthogonal_mp_gram

    Y, D = SIGNALS.to(dtype).numpy(), DICTIONARY.to(dtype).numpy()
    return lambda: orthogonal_mp_gram(D.T @ D, D.T @ Y.T, n_nonzero_coefs=NONZEROS).T


def omp_entry(run):
    def error():
        """Largest difference to scikit-learn's float64 codes; inf if a support differs."""
        right, found = scikit_omp(torch.float64)(), np.asarray(run())
        same = ((right != 0) == (found != 0)).all()
        return np.abs(right - found).max() if same else math.inf

    return Entry(run, error, 1e-4)


def our_omp(dtype):
    Y, D = SIGNALS.to(dtype), DICTIONARY.to(dtype)
    return omp_entry(lambda: omp(Y, D, n_nonzero_coefs=NONZEROS))


Y32, D32 = SIGNALS[:2000].float(), DICTIONARY.float()


def lasso_entry(run, note=""):
    """`run` returns codes (2000, atoms); the error is their mean duality gap."""

    def gap():
        codes = torch.from_numpy(np.array(run())).double()
        return float(lasso_gap(matrix(DICTIONARY), SIGNALS[:2000], codes, LAM).mean())

    return Entry(run, gap, 2e-4, note=f"error = mean gap {note}".strip())


def our_lasso(rtol):
    return lasso_entry(lambda: lasso(Y32, D32, LAM, rtol=rtol).codes, note=f", rtol {rtol:.0e}")


def scikit_lasso(algorithm):
    from sklearn.decomposition import sparse_encode

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that 1000 sweeps are not enough for some
            return sparse_encode(Y32.numpy(), D32.T.numpy(), algorithm=algorithm, alpha=LAM)

    return lasso_entry(run)


def spams_lasso():
    import spams

    Y, D = (np.asfortranarray(u.numpy()) for u in (Y32.T, D32))
    solve = partial(spams.lasso, Y, D, lambda1=LAM, mode=2, numThreads=1)
    return lasso_entry(lambda: solve().toarray().T, note=", homotopy")


def cases():
    found = []
    for dtype in (torch.float32, torch.float64):
        entries = {"tutorial_lib": partial(our_omp, dtype)}
        entries["scikit-learn"] = lambda dtype=dtype: omp_entry(scikit_omp(dtype))
        title = f"OMP, 5000 x 64 {dtype}, {ATOMS} atoms, {NONZEROS} nonzeros"
        found.append(Case(title, entries, "scikit-learn", 65 / 524))
    entries = {"tutorial_lib": partial(our_lasso, 1e-4), "to 1e-5": partial(our_lasso, 1e-5)}
    for name in ("lasso_cd", "lasso_lars"):
        entries[f"scikit-learn {name[6:]}"] = partial(scikit_lasso, name)
    entries["spams"] = spams_lasso
    title = f"lasso, 2000 x 64 float32, {ATOMS} atoms, lambda {LAM}"
    return [*found, Case(title, entries, "scikit-learn cd", 1.0, threads=(1,))]
