"""Deblurring with wavelet sparsity: min_a 1/2 ||y - H W^-1 a||^2 + lambda ||details of a||_1."""

from functools import lru_cache, partial

import numpy as np
import torch
from skimage.data import camera

from tutorial_lib.data import gaussian_kernel
from tutorial_lib.operators import blur, wavelet_synthesis
from tutorial_lib.solvers import fista, lasso_objective

from . import runner
from .runner import Case, Entry

GAPS, LIMIT = (1e-2, 1e-4, 1e-6), 400  # steps
OBJECTIVE = 3.1764  # after 50 steps of FISTA from zero
LAMBDA, LEVEL, SHAPE, COARSE = 2e-4, 4, (256, 256), 16
KERNEL = gaussian_kernel(2.0, size=17)
BLUR = blur(KERNEL.float(), SHAPE, boundary="padded")
SYNTHESIS = wavelet_synthesis(SHAPE, wavelet="haar", level=LEVEL)
WEIGHT = torch.full((256 * 256,), LAMBDA)
WEIGHT[: COARSE**2] = 0  # the approximation is not penalised
CLEAN = torch.from_numpy((camera() / 255.0).reshape(256, 2, 256, 2).mean((1, 3))).float()
Y = BLUR(CLEAN) + 0.01 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
EXACT = blur(KERNEL, SHAPE, boundary="padded") @ SYNTHESIS, Y.double()  # the problem in float64


def objective(a):
    return float(lasso_objective(*EXACT, a.double(), WEIGHT.double()))


@lru_cache
def best():  # the best known objective
    return objective(fista(*EXACT, WEIGHT.double(), step=1.0, max_steps=2500, rtol=0).value)


def ours(restart):
    """A function of (steps, callback), and how its iterates become our coefficients."""
    problem, options = (BLUR @ SYNTHESIS, Y, WEIGHT), {"step": 1.0, "rtol": 0, "restart": restart}

    def solve(steps, each=None):
        callback = each and (lambda k, a: each(a))
        return fista(*problem, max_steps=steps, callback=callback, **options).value

    return solve, lambda a: a


def pyproximal():
    from pylops.signalprocessing import DWT2D, Convolve2D
    from pyproximal import L1, L2
    from pyproximal.optimization.primal import ProximalGradient

    W = DWT2D(SHAPE, wavelet="haar", level=LEVEL, dtype="float32")
    H = Convolve2D(SHAPE, KERNEL.float().numpy(), offset=(8, 8), method="fft", dtype="float32")
    weight = np.full(SHAPE, np.float32(LAMBDA))
    weight[:COARSE, :COARSE] = 0  # its coefficients form one image, coarsest in the corner
    f, g = L2(Op=H * W.H, b=Y.numpy().ravel()), L1(sigma=weight.ravel())
    options = {"x0": np.zeros(256 * 256, dtype=np.float32), "tau": 1.0, "acceleration": "fista"}

    def solve(steps, each=None):
        return ProximalGradient(f, g, niter=steps, callback=each, **options)

    return solve, lambda a: SYNTHESIS.adjoint(torch.from_numpy(W.H @ a).view(SHAPE).double())


@lru_cache
def trace(make):
    """The objective after each step, off the clock."""
    found, (solve, ordered) = [], make()
    solve(LIMIT, lambda a: found.append(objective(ordered(a))))
    return found


def fixed(make, note):
    """50 steps; the gate is the objective that they reach."""
    solve, ordered = make()

    def error():
        return abs(objective(ordered(solve(50))) - OBJECTIVE)

    return Entry(partial(solve, 50), error, 1e-4, note=note)


def until(gap, make, note):
    return runner.until(make()[0], trace(make), best(), gap, note)


def cases():
    # Both run plain FISTA; the restarted one, our default, is a further line.
    makers = {
        "tutorial_lib": (partial(ours, False), ""),
        "tutorial_lib, restart": (partial(ours, True), ""),
        "pyproximal": (pyproximal, "in float64"),
    }

    def case(title, prepare, **options):
        entries = {name: partial(prepare, *make) for name, make in makers.items()}
        title += ", camera 256x256, Gaussian blur 2, Haar 4 levels, lambda 2e-4"
        return Case(title, entries, "pyproximal", 0.35, **options)

    first = case("50 FISTA steps", fixed, peak=True)
    gaps = [(f"time to a relative gap of {gap:.0e}", partial(until, gap)) for gap in GAPS]
    return [first, *(case(*gap, threads=(1,)) for gap in gaps)]
