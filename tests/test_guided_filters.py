"""Joint bilateral upsampling and the guided filter, against their definitions by brute force."""

import math

import pytest
import torch

from tutorial_lib.guided_filters import guided_filter, joint_bilateral_upsample
from tutorial_lib.super_resolution import downscale


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("scale", "radius"), [(2, 1), (4, 2), (3, 9)])
def test_joint_bilateral_is_its_sum(scale, radius):
    small, guide = noise(5, 4), noise(5 * scale, 4 * scale, seed=1)
    sigma_space, sigma_range = 0.8, 0.2
    widths = {"sigma_space": sigma_space, "sigma_range": sigma_range}
    z = joint_bilateral_upsample(small, guide, scale=scale, radius=radius, **widths)
    g = downscale(guide, scale=scale)
    for p in range(5 * scale):
        for s in range(4 * scale):
            u, v = (p + 0.5) / scale - 0.5, (s + 0.5) / scale - 0.5
            total = weight = 0.0
            for q in range(5):
                for r in range(4):
                    near = all(-radius < k - math.floor(c) <= radius for k, c in ((q, u), (r, v)))
                    far = (u - q) ** 2 + (v - r) ** 2
                    unlike = (guide[p, s] - g[q, r]).item() ** 2
                    log = -far / (2 * sigma_space**2) - unlike / (2 * sigma_range**2)
                    total += near * math.exp(log) * small[q, r].item()
                    weight += near * math.exp(log)
            assert z[p, s].item() == pytest.approx(total / weight, rel=1e-9)


def test_joint_bilateral_puts_the_edge_where_the_guide_has_it():
    guide = torch.zeros(32, 32)
    guide[:, 13:] = 1.0
    target = 0.2 + 0.6 * guide
    small = downscale(target, scale=4)
    z = joint_bilateral_upsample(small, guide, scale=4, sigma_space=1.0, sigma_range=0.1)
    assert (z - target).abs().max() < 0.07  # bicubic interpolation is 0.3 off
    flat = torch.zeros_like(guide)
    blurred = joint_bilateral_upsample(small, flat, scale=4, sigma_space=1.0, sigma_range=0.1)
    assert (blurred - target).abs().max() > 0.2


def test_joint_bilateral_where_nothing_is_alike():
    """Weights below the smallest float: a mean all the same."""
    small, guide = torch.full((4, 4), 0.3), torch.rand(16, 16)
    z = joint_bilateral_upsample(small, guide, scale=4, sigma_space=0.01, sigma_range=1e-4)
    assert torch.allclose(z, torch.full_like(z, 0.3))


@pytest.mark.parametrize("radius", [1, 2, 7])
def test_guided_filter_is_a_ridge_regression_in_each_window(radius):
    x, y, eps = noise(6, 8), noise(6, 8, seed=1), 0.01
    a, b = torch.zeros_like(x), torch.zeros_like(x)
    windows = {}
    for i in range(6):
        for j in range(8):
            rows = slice(max(0, i - radius), i + radius + 1)
            columns = slice(max(0, j - radius), j + radius + 1)
            windows[i, j] = rows, columns
            u, v = y[rows, columns].flatten(), x[rows, columns].flatten()
            A = torch.stack([u, torch.ones_like(u)], 1)
            penalty = torch.tensor([[len(u) * eps, 0.0], [0.0, 0.0]], dtype=torch.float64)
            a[i, j], b[i, j] = torch.linalg.solve(A.mT @ A + penalty, A.mT @ v)
    z = guided_filter(x, y, radius=radius, eps=eps)
    for (i, j), window in windows.items():
        expected = a[window].mean() * y[i, j] + b[window].mean()
        assert z[i, j].item() == pytest.approx(expected.item(), rel=1e-9)


def test_guided_filter_batches_and_dtype():
    x, y = torch.rand(3, 9, 8), torch.rand(3, 9, 8)
    z = guided_filter(x, y, radius=2, eps=0.1)
    assert z.dtype == torch.float32
    assert torch.allclose(z[1], guided_filter(x[1], y[1], radius=2, eps=0.1))
    smooth = guided_filter(x, y, radius=2, eps=1e9)  # a = 0: the mean of means
    twice = guided_filter(x, torch.zeros_like(y), radius=2, eps=0.1)
    assert torch.allclose(smooth, twice, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: guided_filter(x, x.mT[:4], radius=1, eps=0.1), "(4, 8)"),
        (lambda x: guided_filter(x, x, radius=0, eps=0.1), "radius = 0"),
        (lambda x: guided_filter(x, x, radius=1, eps=0.0), "eps = 0.0"),
        (lambda x: guided_filter(x * torch.nan, x, radius=1, eps=0.1), "NaN"),
    ],
)
def test_guided_filter_refuses(call, words):
    with pytest.raises(ValueError) as refusal:
        call(torch.rand(8, 8))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 2}, "2 times that of small, (4, 4)"),
        ({"sigma_space": 0.0}, "sigma_space = 0.0"),
        ({"sigma_range": -1.0}, "sigma_range = -1.0"),
        ({"radius": 0}, "radius = 0"),
    ],
)
def test_joint_bilateral_refuses(change, words):
    settings = {"scale": 4, "sigma_space": 1.0, "sigma_range": 0.1, "radius": 2} | change
    with pytest.raises(ValueError) as refusal:
        joint_bilateral_upsample(torch.rand(4, 4), torch.rand(16, 16), **settings)
    assert words in str(refusal.value)
