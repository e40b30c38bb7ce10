"""Multi-focus pairs, the wavelet rule, and the gradient-based measure of a fusion."""

import math
from inspect import unwrap

import pytest
import torch

from tutorial_lib.data import photograph
from tutorial_lib.fusion import (
    edge_transfer,
    focus_pair,
    fuse_wavelet,
    gaussian_blur,
    random_corner,
)
from tutorial_lib.metrics import psnr

BEST = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(-4.4))  # of the measure: 0.9748


@pytest.fixture(scope="module")
def pair():
    x = photograph("camera", size=256)
    return x, *focus_pair(x, torch.tensor([40, 70]))


# Pairs -------------------------------------------------------------------------------------------


def test_one_of_the_two_is_the_truth_everywhere(pair):
    x, a, b, mask = pair
    assert torch.equal(torch.where(mask, b, a), x)
    assert torch.allclose(a + b, x + gaussian_blur(x, 3.0), atol=1e-6)
    assert mask.sum() == 140 * 140 and mask[40:180, 70:210].all()
    assert psnr(a, x) < 35 and psnr(b, x) < 35


def test_each_image_of_a_batch_has_its_own_window():
    x = torch.rand(2, 3, 40, 50, dtype=torch.float64)
    corner = torch.randint(-20, 40, (2, 3, 2))
    many = focus_pair(x, corner, window=25, sigma=1.5)
    for i in range(2):
        for j in range(3):
            one = focus_pair(x[i, j], corner[i, j], window=25, sigma=1.5)
            for t, u in zip(many, one, strict=True):
                torch.testing.assert_close(t[i, j], u)
                assert t.dtype == u.dtype


def test_the_blur_is_a_gaussian_of_that_width():
    x = torch.zeros(65, 65, dtype=torch.float64)
    x[32, 32] = 1
    y = gaussian_blur(x, 3.0)
    i = torch.arange(65, dtype=torch.float64) - 32
    assert torch.isclose(y.sum(), torch.tensor(1.0).double())
    assert abs((y.sum(1) * i**2).sum() - 9) < 0.4  # cut at three sigma: a little below 9
    assert torch.allclose(y, y.T) and torch.allclose(y, y.flip(0))
    assert torch.isclose(y[32, 35] / y[32, 32], torch.tensor(math.exp(-0.5)).double())


def test_windows_lie_inside_where_they_can_and_cross_patches_else():
    g = torch.Generator().manual_seed(0)
    whole = torch.stack([random_corner((160, 150), generator=g) for _ in range(400)])
    assert whole.amin(0).tolist() == [0, 0] and whole.amax(0).tolist() == [20, 10]
    patch = torch.stack([random_corner((64, 64), generator=g) for _ in range(400)])
    covered = (patch + 140).clamp(max=64) - patch.clamp(min=0)
    assert covered.amin() == 8 and covered.amax() == 64
    crossed = (covered < 64).any(1).double().mean()
    assert 0.75 < crossed < 0.92
    again = torch.Generator().manual_seed(0)
    assert torch.equal(random_corner((160, 150), generator=again), whole[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window 0 must be at least 1"),
        ({"sigma": 0.0}, "sigma 0.0 must be positive"),
        ({"sigma": math.inf}, "sigma inf must be positive and finite"),
        ({"sigma": 40.0}, r"\(64, 64\): a blur of sigma 40.0 needs more than 120"),
        ({"corner": torch.zeros(3, 2, dtype=torch.int64)}, r"\(3, 2\).*\(2,\) are needed"),
        ({"corner": torch.zeros(2)}, "float32: whole numbers"),
        ({"x": torch.full((64, 64), torch.nan)}, r"NaN in an image of shape \(64, 64\)"),
        ({"x": torch.zeros(64, 64, dtype=torch.int64)}, "floating point"),
    ],
)
def test_pairs_refuse(change, message):
    given = {"x": torch.rand(64, 64), "corner": torch.zeros(2, dtype=torch.int64)} | change
    with pytest.raises(ValueError, match=message):  # without the test run's type checks
        unwrap(focus_pair)(given.pop("x"), given.pop("corner"), **given)


# The wavelet rule --------------------------------------------------------------------------------


def test_wavelet_fusion_of_equals_is_the_image_and_the_order_does_not_matter(pair):
    x, a, b, _ = pair
    assert torch.allclose(fuse_wavelet(x, x), x, atol=1e-5)
    assert torch.allclose(fuse_wavelet(a, b), fuse_wavelet(b, a), atol=1e-6)


def test_wavelet_fusion_beats_the_mean_and_both_images(pair):
    x, a, b, _ = pair
    fused = psnr(fuse_wavelet(a, b), x)
    assert fused > psnr((a + b) / 2, x) + 5
    assert fused > max(psnr(a, x), psnr(b, x)) + 5


def test_a_lone_outlier_is_overruled():
    a = torch.zeros(64, 64, dtype=torch.float64)
    a[:, ::2] = 1.0  # texture
    b = torch.full_like(a, 0.5)
    b[30, 30] = 3.0  # one pixel of b shouts; so near to it b may win, but not farther
    fused = fuse_wavelet(a, b, wavelet="haar", level=1)
    far = (torch.arange(64) - 30).abs() > 5
    assert torch.allclose(fused[far], a[far], atol=1e-9)


def test_the_mean_of_the_approximations_is_kept():
    a = torch.full((32, 32), 0.2)
    assert torch.allclose(fuse_wavelet(a, a + 0.4), a + 0.2, atol=1e-6)


# The measure -------------------------------------------------------------------------------------


def test_best_value_is_that_of_three_equal_images(pair):
    x, a, b, _ = pair
    assert abs(BEST - 0.9748) < 5e-5  # as documented
    assert abs(edge_transfer(x, x, x) - BEST) < 1e-4
    assert edge_transfer(x, a, b) < BEST
    assert edge_transfer(torch.full_like(x, 0.5), a, b) < 1e-3


def test_it_falls_with_blur(pair):
    x, *_ = pair
    values = [edge_transfer(gaussian_blur(x, s), x, x) for s in (0.5, 1.0, 2.0, 4.0)]
    assert all(s > t + 0.01 for s, t in zip([BEST, *values], values, strict=False))


def test_it_is_symmetric_and_ignores_offset_scale_and_orientation(pair):
    x, a, b, _ = pair
    value = edge_transfer(x, a, b)
    assert torch.isclose(value, edge_transfer(x, b, a), atol=1e-6)
    assert torch.isclose(value, edge_transfer(3 * x + 1, 3 * a - 5, 3 * b), atol=1e-4)
    assert torch.isclose(value, edge_transfer(-x, a, b), atol=1e-6)  # an edge has no sign
    turned = [t.rot90().flip(0) for t in (x, a, b)]
    assert torch.isclose(value, edge_transfer(*turned), atol=1e-4)


def test_strong_edges_weigh_more():
    """Edges of a and b that do not overlap: the fused image has those of a, ten times stronger."""
    a, b = torch.zeros(2, 32, 32, dtype=torch.float64)
    a[:, 8:] = 1.0
    b[:, 24:] = 0.1
    assert torch.isclose(edge_transfer(a, a, b), torch.tensor(BEST * 10 / 11).double(), rtol=1e-3)
    assert torch.isclose(edge_transfer(b, a, b), torch.tensor(BEST / 11).double(), rtol=2e-2)


def test_value_of_one_edge_by_hand():
    """A step of height 1 in both images, .6 in the fused one and turned by no angle."""
    x = torch.zeros(16, 16, dtype=torch.float64)
    x[:, 8:] = 1.0
    by_hand = 0.9994 / (1 + math.exp(-15 * 0.1)) * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert torch.isclose(edge_transfer(0.6 * x, x, x), torch.tensor(by_hand).double())


def test_rotated_edges_count_as_lost():
    """An angle of 45 degrees, A = 1/2, leaves next to nothing."""
    i, j = torch.meshgrid(*[torch.arange(32.0, dtype=torch.float64)] * 2, indexing="ij")
    flat, oblique = i, (i + j) / math.sqrt(2)  # ramps of equal strength
    by_hand = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(22 * 0.3))
    assert torch.isclose(edge_transfer(oblique, flat, flat), torch.tensor(by_hand).double())


def test_batch_is_single():
    x, a, b = torch.rand(3, 2, 4, 20, 24)
    values = edge_transfer(x, a, b)
    assert values.shape == (2, 4)
    assert torch.isclose(values[1, 2], edge_transfer(x[1, 2], a[1, 2], b[1, 2]))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((8, 8), (8, 8), (8, 9)), r"shapes differ: \(8, 8\), \(8, 8\), \(8, 9\)"),
        (((2, 8), (2, 8), (2, 8)), "at least 3 x 3"),
    ],
)
def test_the_measure_refuses(shapes, message):
    with pytest.raises(ValueError, match=message):
        unwrap(edge_transfer)(*map(torch.rand, shapes))


def test_the_rule_refuses():
    with pytest.raises(ValueError, match=r"shapes differ: \(8, 8\), \(8, 9\)"):
        unwrap(fuse_wavelet)(torch.rand(8, 8), torch.rand(8, 9))
    with pytest.raises(ValueError, match="window 0 and image"):
        random_corner((8, 8), window=0, generator=torch.Generator())
