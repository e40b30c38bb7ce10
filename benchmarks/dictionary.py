"""K-SVD on patches of photographs: ten steps, 256 atoms, five nonzeros, from 256 of the patches."""

from functools import partial

import numpy as np
import torch

from tutorial_lib.dictionary import learn_dictionary
from tutorial_lib.sparse_coding import omp

from .runner import Case, Entry
from .sparse_coding import ATOMS, DICTIONARY, NONZEROS, SIGNALS

Y, START, STEPS = SIGNALS.float(), DICTIONARY.float(), 10


def entry(run, note=""):
    """`run` returns the dictionary (64, atoms); its error is what OMP then leaves of a signal."""

    def error():
        D = torch.as_tensor(np.array(run())).float()
        D = D / D.norm(dim=0)
        codes = omp(Y, D, n_nonzero_coefs=NONZEROS)
        return float((Y - codes @ D.mT).square().sum(1).mean())

    return Entry(run, error, 0.15, note=f"error = energy left {note}".strip())


def ours(method):
    options = {"n_nonzero_coefs": NONZEROS, "method": method, "steps": STEPS}
    return entry(lambda: learn_dictionary(Y, START, **options).dictionary, f", {method}")


def ksvd():
    from ksvd import ApproximateKSVD

    signals = Y.double().numpy()

    def run():
        np.random.seed(0)  # noqa: NPY002  (the package draws from the global generator)
        model = ApproximateKSVD(ATOMS, max_iter=STEPS, transform_n_nonzero_coefs=NONZEROS)
        return model.fit(signals).components_.T

    return entry(run, ", its own start")


def spams():
    import spams as package

    signals, start = (np.asfortranarray(u.numpy()) for u in (Y.T, START))
    options = {"lambda1": NONZEROS, "mode": 3, "iter": 100, "numThreads": 1, "verbose": False}
    run = lambda: package.trainDL(signals, D=start, **options)  # noqa: E731
    return entry(run, ", online, 100 batches")


def cases():
    entries = {
        "tutorial_lib": partial(ours, "ksvd"),
        "approximate": partial(ours, "ksvd-approximate"),
        "MOD": partial(ours, "mod"),
        "ksvd": ksvd,
        "spams": spams,
    }
    title = f"K-SVD, 5000 x 64 float32, {ATOMS} atoms, {NONZEROS} nonzeros, {STEPS} steps"
    return [Case(title, entries, "ksvd", 1.0, threads=(1,))]
