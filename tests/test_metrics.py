"""psnr and ssim against their formulas and against scikit-image."""

from inspect import unwrap

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tutorial_lib.data import add_noise, photograph
from tutorial_lib.metrics import psnr, ssim

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def noisy_pair(name, sigma, *, gray):
    x = photograph(name, size=None, gray=gray)
    return add_noise(x, sigma / 255).clamp(0, 1), x


@pytest.mark.parametrize("sigma", [5, 25, 80])
@pytest.mark.parametrize("name", ["camera", "coins", "clock"])
def test_gray_equals_scikit_image(name, sigma):
    y, x = noisy_pair(name, sigma, gray=True)
    assert ssim(y, x) == pytest.approx(
        structural_similarity(y.numpy(), x.numpy(), **WANG), abs=1e-5
    )
    expected = peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=1.0)
    assert psnr(y, x) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_colour_equals_scikit_image(name):
    y, x = noisy_pair(name, 25, gray=False)
    expected = structural_similarity(y.numpy(), x.numpy(), channel_axis=0, **WANG)
    assert ssim(y, x, ndim=3) == pytest.approx(expected, abs=1e-5)
    expected = peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=1.0)
    assert psnr(y, x, ndim=3) == pytest.approx(expected, abs=1e-4)


def test_the_published_number():
    """Astronaut with noise of 25/255, clipped: 0.3353 whatever the seed, to its spread."""
    x = torch.from_numpy(skimage.data.astronaut() / 255.0).movedim(-1, 0)
    y = torch.stack([add_noise(x, 25 / 255, seed=s).clamp(0, 1) for s in range(4)])
    assert ssim(y, x.expand_as(y), ndim=3) == pytest.approx([0.33529] * 4, abs=2e-3)


def test_other_range_is_a_change_of_unit():
    y, x = noisy_pair("moon", 10, gray=True)
    assert psnr(255 * y, 255 * x, data_range=255.0) == pytest.approx(psnr(y, x).item(), abs=1e-3)
    assert ssim(255 * y, 255 * x, data_range=255.0) == pytest.approx(ssim(y, x).item(), abs=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_batch_equals_one_by_one_and_ndim_pools(metric):
    x = torch.rand(2, 3, 16, 20, dtype=torch.float64)
    y = add_noise(x, 0.1)
    one_by_one = torch.stack([torch.stack([metric(*p) for p in zip(*q)]) for q in zip(y, x)])  # noqa: B905
    torch.testing.assert_close(metric(y, x), one_by_one)
    pooled = metric(y, x, ndim=3)
    assert pooled.shape == (2,)
    if metric is ssim:
        torch.testing.assert_close(pooled, one_by_one.mean(-1))
    else:  # the errors are averaged, not the decibels
        mse = (10 ** (-one_by_one / 10)).mean(-1)
        torch.testing.assert_close(pooled, -10 * mse.log10())


def test_equal_images():
    x = torch.rand(12, 12)
    assert psnr(x, x) == np.inf
    assert ssim(x, x) == 1


def test_ssim_is_differentiable_and_keeps_dtype():
    x = torch.rand(12, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: ssim(v, torch.eye(12, 13).double()), x)
    assert ssim(torch.eye(12), torch.eye(12)).dtype == torch.float32


IMAGE = torch.zeros(16, 16)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("x", "reference", "options", "message"),
    [
        (IMAGE, torch.zeros(16, 17), {}, r"shapes differ: \(16, 16\) against \(16, 17\)"),
        (IMAGE, IMAGE.to("meta"), {}, "devices differ: cpu against meta"),
        (IMAGE.int(), IMAGE.int(), {}, "expected floating point .* got torch.int32"),
        (IMAGE * torch.nan, IMAGE, {}, "NaN"),
        (IMAGE, IMAGE * torch.nan, {}, "NaN"),
        (torch.zeros(16), torch.zeros(16), {}, r"axes .* got shape \(16,\)"),
        (IMAGE, IMAGE, {"ndim": 3}, "ndim = 3"),
        (IMAGE[:0], IMAGE[:0], {}, r"got shape \(0, 16\)"),
        (IMAGE, IMAGE, {"data_range": 0.0}, "data_range must be positive .* got 0.0"),
        (IMAGE, IMAGE, {"data_range": -1.0}, "data_range"),
        (IMAGE, IMAGE, {"data_range": float("nan")}, "data_range"),
    ],
)
def test_refusals(metric, x, reference, options, message):
    with pytest.raises(ValueError, match=message):
        unwrap(metric)(x, reference, **options)  # without the test run's type checks


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match=r"11 x 11 pixels, got shape \(10, 30\)"):
        ssim(torch.zeros(10, 30), torch.zeros(10, 30))
