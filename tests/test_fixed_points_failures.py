"""Fixed points that are not found, and arguments that cannot be: all failures are loud."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from contractions import METHODS

from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Solver, fixed_point
from tutorial_lib.operators import NotConvergedWarning


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


@pytest.mark.usefixtures("unchecked")
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


@pytest.mark.usefixtures("unchecked")
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
