"""Low-rank denoising: the subspace and the noise levels."""

import math

import pytest
import torch
from low_rank_cases import CUBE, randn

from tutorial_lib.data import add_cube_noise
from tutorial_lib.low_rank import denoise_low_rank, signal_subspace
from tutorial_lib.metrics import psnr
from tutorial_lib.thresholding import denoise_wavelet

# The subspace ------------------------------------------------------------------------------------


def test_the_edge_of_noise_and_a_planted_signal():
    noise = randn(31, 5000)
    assert signal_subspace(noise).shape[1] == 1  # at least one, though none stands out
    U = torch.linalg.qr(randn(31, 4, seed=2)).Q
    found = signal_subspace(noise + U @ (randn(4, 5000, seed=3)))
    assert found.shape == (31, 4)
    assert torch.linalg.matrix_norm(found.T @ U, 2) > 0.98
    assert torch.allclose(found.T @ found, torch.eye(4, dtype=torch.float64), atol=1e-10)


def test_the_rank_can_be_told():
    z = randn(6, 50)
    U, S, _ = torch.linalg.svd(z, full_matrices=False)
    for k in (1, 6):
        own = signal_subspace(z, rank=k)
        assert torch.allclose(own @ own.T, U[:, :k] @ U[:, :k].T, atol=1e-8)


# Denoising ---------------------------------------------------------------------------------------


def test_the_visible_formula():
    """x = sigma U denoise(U^T z), with any denoiser."""
    sigma = torch.linspace(0.05, 0.2, 20)
    y = CUBE + sigma[:, None, None] * randn(20, 64, 64, dtype=torch.float32)
    found = denoise_low_rank(y, sigma=sigma, rank=4, denoise=lambda images: images / 2)
    z = (y / sigma[:, None, None]).flatten(1)
    U = torch.linalg.svd(z, full_matrices=False)[0][:, :4]
    assert torch.allclose(found.cube.flatten(1), sigma[:, None] * (U @ (U.T @ z)) / 2, atol=1e-4)
    assert found.rank == 4 and torch.equal(found.sigma, sigma)


def test_it_finds_rank_and_levels_and_beats_bands():
    noisy = add_cube_noise(CUBE, "noniid", sigma=95 / 255, seed=3)
    found = denoise_low_rank(noisy.cube)
    assert 3 <= found.rank <= 8  # levels from 64 x 64 pixels are some per cent wrong
    assert denoise_low_rank(noisy.cube, sigma=noisy.sigma).rank == 3
    assert torch.allclose(found.sigma, noisy.sigma.clamp(min=1e-3), rtol=0.15, atol=2e-3)
    bands = denoise_wavelet(noisy.cube, wavelet="sym4", transform="undecimated")
    low, alone = (psnr(x, CUBE).mean() for x in (found.cube, bands))
    assert low > alone + 5


def test_whitening_matters_where_bands_differ():
    noisy = add_cube_noise(CUBE, "noniid", sigma=95 / 255, seed=3)
    mean = noisy.sigma.square().mean().sqrt().expand(20)
    flat = denoise_low_rank(noisy.cube, sigma=mean).cube
    own = denoise_low_rank(noisy.cube, sigma=noisy.sigma).cube
    assert psnr(own, CUBE).mean() > psnr(flat, CUBE).mean() + 3


def test_scale_and_order_of_bands_do_not_matter():
    y = add_cube_noise(CUBE, "noniid", sigma=0.2, seed=1).cube.double()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        denoise_low_rank(y[order]).cube, denoise_low_rank(y).cube[order], atol=1e-8
    )
    sigma = torch.full((20,), 0.1, dtype=torch.float64)
    assert torch.allclose(
        denoise_low_rank(2 * y, sigma=2 * sigma).cube,
        2 * denoise_low_rank(y, sigma=sigma).cube,
        atol=1e-8,
    )


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (CUBE[0], {}, "expected a cube"),
        (CUBE * math.nan, {}, "NaN"),
        (CUBE, {"rank": 21}, "rank = 21"),
        (CUBE, {"rank": 0}, "rank = 0"),
        (CUBE, {"sigma": torch.ones(3)}, "20 levels"),
        (CUBE, {"sigma": -torch.ones(20)}, "at least 0"),
    ],
)
def test_refusals(unchecked, y, options, message):
    with pytest.raises(ValueError, match=message):
        denoise_low_rank(y, **options)
