"""The undecimated Haar frame, and the exact proximal map of the exclusion term."""

import pytest
import torch
from separation_cases import rand

from tutorial_lib.exclusion import (
    haar_details,
    haar_details_adjoint,
    haar_frame,
    haar_synthesis,
    prox_exclusion,
)


def cost(y, v, weight):
    return (y - v).square().sum() / 2 + (weight * haar_details(y)).abs().sum()


# The frame ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (2, 3, 9, 4)])
def test_the_haar_frame_is_parseval_up_to_the_borders(shape):
    y = rand(*shape)
    bands = haar_frame(y)
    torch.testing.assert_close(haar_synthesis(bands), y, atol=1e-14, rtol=0)
    torch.testing.assert_close(bands.square().sum(), y.square().sum())
    b = rand(*bands.shape)
    torch.testing.assert_close((bands * b).sum(), (y * haar_synthesis(b)).sum())


def test_the_bands_are_differences_of_four_pixels():
    y = rand(6, 7)
    a, b, c, d = y[2, 3], y[2, 4], y[3, 3], y[3, 4]
    expected = torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d]) / 4
    torch.testing.assert_close(haar_frame(y)[:, 2, 3], expected)


def test_the_details_see_no_constant_and_no_seam():
    ramp = torch.arange(6.0, dtype=torch.float64).expand(5, 6)
    details = haar_details(ramp)
    assert details[1, :-1, :-1].unique().tolist() == [-0.5]
    assert not details[[0, 2]].any()
    assert not details[:, -1].any()
    assert not details[:, :, -1].any()
    assert not haar_details(torch.full((4, 4), 0.3, dtype=torch.float64)).any()


def test_the_adjoint_of_the_details():
    y, w = rand(2, 5, 7), rand(2, 3, 5, 7)
    torch.testing.assert_close((haar_details(y) * w).sum(), (y * haar_details_adjoint(w)).sum())


# The exclusion term -------------------------------------------------------------------------------


def test_the_prox_of_the_exclusion_term_is_its_argmin():
    v, weight = rand(12, 11), 0.4 * rand(3, 12, 11).abs()
    y, u, gap = prox_exclusion(v, weight, steps=4000)
    best = cost(y, v, weight)
    assert 0 <= gap < 1e-8 * best
    assert bool((u.abs() <= weight).all())
    dual = (v.square().sum() - (v - haar_details_adjoint(u)).square().sum()) / 2
    torch.testing.assert_close(best - dual, gap, atol=1e-9, rtol=0)
    for k in range(200):
        neighbour = y + 10.0 ** (-1 - k % 4) * rand(12, 11, seed=k)
        assert cost(neighbour, v, weight) >= best


def test_thresholding_in_the_redundant_frame_is_not_the_prox():
    v, weight = rand(32, 32), 0.4 * rand(3, 32, 32).abs()
    weight[:, -1] = weight[:, :, -1] = 0  # where `haar_details` is zero anyhow
    y, _, _ = prox_exclusion(v, weight, steps=2000)
    bands = haar_frame(v)
    shrunk = bands[1:] - bands[1:].clamp(-weight, weight)
    naive = haar_synthesis(torch.cat([bands[:1], shrunk]))
    assert cost(naive, v, weight) > 1.001 * cost(y, v, weight)
    assert (naive - y).norm() > 0.05 * y.norm()


def test_in_an_orthonormal_frame_it_would_be():
    v, weight = rand(8, 8), rand(4, 4, 4).abs()
    weight[0] = 0
    bands = 2 * haar_frame(v)[:, ::2, ::2]  # every second pixel: the orthonormal transform
    shrunk = bands - bands.clamp(-weight, weight)
    full = torch.zeros(4, 8, 8, dtype=torch.float64)
    full[:, ::2, ::2] = shrunk
    y = 2 * haar_synthesis(full)

    def value(u):
        return (u - v).square().sum() / 2 + (weight * 2 * haar_frame(u)[:, ::2, ::2]).abs().sum()

    best = value(y)
    torch.testing.assert_close(2 * haar_frame(y)[:, ::2, ::2], shrunk)
    for k in range(100):
        assert value(y + 10.0 ** (-1 - k % 4) * rand(8, 8, seed=k)) >= best


def test_the_prox_of_a_batch_and_its_limits():
    v, weight = rand(2, 6, 6), rand(2, 3, 6, 6).abs()
    both = prox_exclusion(v, weight)[0]
    torch.testing.assert_close(both[1], prox_exclusion(v[1], weight[1])[0])
    torch.testing.assert_close(prox_exclusion(v, 0 * weight)[0], v)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        prox_exclusion(v, 0 * weight - 1)
