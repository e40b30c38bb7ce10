"""Shifts of a strided code: stacks and averages, coherence, reflection."""

import math

import pytest
import torch
from convolutional_cases import bank, dense, each_boundary, randn

from tutorial_lib.convolutional import conv_dictionary
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.convolutional_shifts import average_shifts, shift_coherence, stack_shifts

# The operator ------------------------------------------------------------------------------------


def test_coherence_is_that_of_the_matrix():
    f = 3 * bank(3, 2, 4, 3)
    for stride in (1, 2, (4, 3), (2, 1)):
        q = (stride,) * 2 if isinstance(stride, int) else stride
        M = dense(f / 3, (8, 12) if q[1] > 1 else (8, 9), "circular", stride)
        gram = (M.T @ M).abs()
        gram.fill_diagonal_(0)
        assert shift_coherence(f, stride=stride) == pytest.approx(gram.max().item(), abs=1e-12)


# Around the model --------------------------------------------------------------------------------


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
