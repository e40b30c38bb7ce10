"""Learning filters: no update raises the error, planted filters are found."""

import torch
from convolutional_cases import CASES, F64, bank, each_boundary, each_case, problem, randn
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorial_lib.canvas import BOUNDARIES
from tutorial_lib.convolutional import conv_dictionary
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.convolutional_learning import learn_filters, update_filters
from tutorial_lib.solvers import lasso_objective

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


def test_gradient_of_the_filters_is_a_correlation():
    """(8): the first 3 x 2 lags of the correlation of maps and residual."""
    f, y, z = bank(3, 1, 3, 2).requires_grad_(), randn(1, 4, 5), randn(3, 4, 5, seed=7)
    r = conv_dictionary(f, (4, 5))(z) - y
    (right,) = torch.autograd.grad(r.square().sum() / 2, f)
    lags = torch.fft.irfft2(torch.fft.rfft2(z).conj() * torch.fft.rfft2(r.detach()), s=(4, 5))
    assert torch.allclose(lags[:, None, :3, :2], right)
