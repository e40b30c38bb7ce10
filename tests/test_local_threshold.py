"""Thresholds of each position: what noise, signal and scale do to them."""

import torch
from torch.nn.functional import conv2d, softplus

from tutorial_lib.networks.local_threshold import LocalThreshold


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(module, v, E):
    """T of one sample (maps, h, w), position by position."""
    maps, h, w = v.shape
    ratio = (v / E.flatten(1).norm(dim=1).view(-1, 1, 1)).square()
    g = torch.zeros_like(v)
    for r in range(h):
        for c in range(w):
            area = ratio[:, max(r - 3, 0) : r + 4, max(c - 3, 0) : c + 4]
            g[:, r, c] = (area.mean((1, 2)) - 1).clamp(min=0).log1p()
    return softplus(module.top).view(-1, 1, 1) * torch.exp(
        -torch.einsum("ij,jhw->ihw", module.mix, g)
    )


@torch.no_grad()
def test_the_formula_in_the_plane_and_band_by_band():
    module, E = LocalThreshold(0.7, 3), 2 * randn(3, 4, 3, 3)
    module.mix += 0.1 * randn(3, 3, seed=1)
    v = 30 * randn(2, 3, 5, 7, 8, seed=2)  # (b, maps, bands, h, w)
    T = module(v, E)
    assert T.shape == v.shape
    for i in range(2):
        for band in range(5):
            assert torch.allclose(T[i, :, band], by_hand(module, v[i, :, band], E), rtol=1e-5)
    assert torch.allclose(module(v[:, :, 0], E), T[:, :, 0])


@torch.no_grad()
def test_noise_alone_leaves_nearly_the_whole_threshold_whatever_the_encoder():
    y = randn(1, 4, 64, 64)
    for scale in (0.1, 10.0):
        E = scale * randn(6, 4, 3, 3, seed=1)
        T = LocalThreshold(1.5, 6)(conv2d(y, E, padding=1), E)
        assert T.max() <= 1.5 + 1e-6 and T.mean() > 1.3


@torch.no_grad()
def test_without_its_matrix_the_threshold_is_one_number_a_map():
    module = LocalThreshold(0.4, 3, local=False)
    assert torch.allclose(module(9 * randn(2, 3, 4, 5), torch.ones(3, 2)), torch.tensor(0.4))
    assert len(list(module.parameters())) == 1


@torch.no_grad()
def test_at_the_start_the_threshold_falls_with_a_power_of_the_energy():
    for size in (2.0, 10.0, 50.0):
        T = LocalThreshold(3.0, 1)(torch.full((1, 1, 9, 9), size), torch.ones(1, 1))
        assert torch.allclose(T, torch.tensor(3 / size**2.4), rtol=1e-4)
