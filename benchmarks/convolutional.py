"""Convolutional coding: min_z 1/2 ||y - sum_m d_m * z_m||^2 + lam ||z||_1, 2-D and 3-D."""

from functools import lru_cache, partial

import numpy as np
import torch

from tutorial_lib.convolutional import conv_dictionary, conv_norm, split_lowpass
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.data import photograph
from tutorial_lib.solvers import fista, lasso_objective

from . import runner
from .runner import Case

LAM, GAPS = 0.05, (1e-2, 1e-4, 1e-6)


def high(y):
    return split_lowpass(y[None], dims=y.ndim)[1]


def moving():
    """A 32^3 cube: a 32 x 32 window that drifts over a photograph."""
    x = photograph("camera", size=128)
    return torch.stack([x[20 + k : 52 + k, 40 + k // 2 : 72 + k // 2] for k in range(32)])


def bank(*shape):
    f = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return f / f.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in shape[1:]))


JOBS = {  # image (1, *shape), filters (maps, 1, *kernel)
    "128x128, 32 filters 8x8": (high(photograph("camera", size=128)), bank(32, 1, 8, 8)),
    "32x32x32, 16 filters 5x5x5": (high(moving()), bank(16, 1, 5, 5, 5)),
}


@lru_cache
def exact(job):
    """The problem in float64, and its minimum."""
    y, f = (t.double() for t in JOBS[job])
    D = conv_dictionary(f, y.shape[1:])
    z = csc_admm(y, f, LAM, rtol=1e-7, max_steps=3000).value
    return D, y, float(lasso_objective(D, y, z, LAM))


def objective(job, z):
    D, y, _ = exact(job)
    return float(lasso_objective(D, y, z.double(), LAM))


def our_admm(job):
    y, f = JOBS[job]

    def solve(steps, each=None):
        callback = each and (lambda k, z: each(z))
        return csc_admm(y, f, LAM, rtol=0, max_steps=steps, callback=callback).value

    return solve


def our_fista(job):
    y, f = JOBS[job]

    def solve(steps, each=None):
        D = conv_dictionary(f, y.shape[1:])
        options = {"step": 1 / conv_norm(f, y.shape[1:]) ** 2, "max_steps": steps, "rtol": 0}
        callback = each and (lambda k, z: each(z))
        return fista(D, y, LAM, callback=callback, **options).value

    return solve


def sporco(kind, job):
    import importlib

    module = importlib.import_module(f"sporco.{kind}.cbpdn").ConvBPDN
    y, f = JOBS[job]
    S = y[0].numpy()
    bank_last = np.ascontiguousarray(np.moveaxis(f[:, 0].numpy(), 0, -1))
    extra = {} if kind == "admm" else {"L": float(conv_norm(f, y.shape[1:]) ** 2)}

    def solve(steps, each=None):
        # FastSolve: no statistics; RelStopTol 0: exactly these steps
        look = each and (lambda s: each(ordered(s.getmin() if kind == "pgm" else s.Y)))
        opt = {"FastSolve": True, "RelStopTol": 0.0, "MaxMainIter": steps, **extra}
        options = module.Options(opt | ({"Callback": look} if look else {}))
        return module(bank_last, S, np.float32(LAM), options, dimK=0, dimN=S.ndim).solve()

    def ordered(x):  # (*shape, 1, 1, maps)
        assert x.dtype == np.float32
        return torch.from_numpy(np.moveaxis(x[..., 0, 0, :], -1, 0).copy())

    return solve


@lru_cache
def trace(make, limit, job):
    """The objective after each step, off the clock."""
    found = []
    make(job)(limit, lambda z: found.append(objective(job, z)))
    return found


MAKERS = {
    "tutorial_lib ADMM": (our_admm, 250),  # steps at most
    "tutorial_lib FISTA": (our_fista, 180),
    "sporco ADMM": (partial(sporco, "admm"), 250),
    "sporco PGM": (partial(sporco, "pgm"), 180),
}


def entry(name, gap, job):
    make, limit = MAKERS[name]
    return runner.until(make(job), trace(make, limit, job), exact(job)[2], gap)


def cases():
    def case(job, gap):
        entries = {name: partial(entry, name, gap, job) for name in MAKERS}
        title = f"{job}, circular, lambda {LAM}: time to a relative gap of {gap:.0e}"
        return Case(title, entries, "sporco ADMM", 1.0, threads=(1,))

    return [case(job, gap) for job in JOBS for gap in GAPS]
