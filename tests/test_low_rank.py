"""Low-rank denoising: the subspace, the noise levels, and the pursuit with its certificate."""

import math

import jaxtyping
import pytest
import torch

from tutorial_lib.data import add_cube_noise
from tutorial_lib.low_rank import (
    denoise_low_rank,
    low_rank_plus_sparse,
    pursuit_objective,
    shrink_singular_values,
    signal_subspace,
)
from tutorial_lib.metrics import psnr
from tutorial_lib.operators import NotConvergedWarning
from tutorial_lib.thresholding import denoise_wavelet


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.fixture
def unchecked():
    """As for users: without the run-time checks of shapes, so that the messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def flat_scene(bands=20, side=64):
    """Three materials in rectangles: rank 3, piecewise constant."""
    spectra = torch.rand(3, bands, generator=torch.Generator().manual_seed(1))
    maps = torch.zeros(3, side, side)
    maps[0] = 1.0
    maps[:2, 10:40, 5:50] = torch.tensor([0.0, 1.0])[:, None, None]
    maps[0, 30:60, 30:60], maps[1, 30:60, 30:60], maps[2, 30:60, 30:60] = 0.0, 0.0, 1.0
    return torch.einsum("kb,khw->bhw", spectra, maps)


CUBE = flat_scene()


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


# Low rank plus sparse ----------------------------------------------------------------------------


def test_shrunk_singular_values_are_the_argmin():
    v, tau = randn(5, 30), 2.0
    L, values = shrink_singular_values(v, tau)
    U, S, Vh = torch.linalg.svd(v, full_matrices=False)
    assert torch.allclose(L, U @ torch.diag((S - tau).clamp(min=0)) @ Vh, atol=1e-8)
    assert torch.allclose(values.flip(0), (S - tau).clamp(min=0), atol=1e-8)

    def F(L):
        return (v - L).square().sum() / 2 + tau * torch.linalg.svdvals(L).sum()

    for seed in range(10):
        for size in (1e-1, 1e-3):
            assert F(L + size * randn(5, 30, seed=seed)) > F(L)


def test_the_pursuit_is_optimal_and_its_gap_true():
    y = randn(8, 40) + 3 * randn(8, 2, seed=1) @ randn(2, 40, seed=2)
    y[randn(8, 40, seed=3) > 1.5] += 20
    tau, lam = 5.0, 1.5
    rough = low_rank_plus_sparse(y, tau=tau, lam=lam, rtol=1e-2)
    exact = low_rank_plus_sparse(y, tau=tau, lam=lam, rtol=1e-10, max_steps=20_000)
    F = lambda p: pursuit_objective(y, p.low_rank, p.sparse, tau=tau, lam=lam)  # noqa: E731
    assert rough.converged and exact.converged and rough.steps < exact.steps
    assert F(exact) <= F(rough) <= F(exact) / (1 - rough.gap) * (1 + 1e-9)
    for seed in range(10):  # nothing near is better
        move = exact._replace(
            low_rank=exact.low_rank + 1e-2 * randn(8, 40, seed=seed),
            sparse=exact.sparse + 1e-2 * randn(8, 40, seed=seed + 50),
        )
        assert F(move) > F(exact)
    r = y - exact.low_rank - exact.sparse  # the conditions of optimality
    assert r.abs().max() <= lam + 1e-6
    assert torch.linalg.svdvals(r)[0] <= tau + 1e-3
    used = exact.sparse != 0
    assert torch.allclose(r[used], lam * exact.sparse[used].sign(), atol=1e-8)
    nuclear = torch.linalg.svdvals(exact.low_rank).sum()
    assert (r * exact.low_rank).sum() == pytest.approx(float(tau * nuclear), rel=1e-4)


def test_a_planted_pair_is_recovered():
    L = randn(20, 2) @ randn(2, 400, seed=1)
    S = torch.where(randn(20, 400, seed=2) > 1.9, 10.0, 0.0).double()
    found = low_rank_plus_sparse(L + S, tau=0.5, lam=0.05, max_steps=5000, rtol=1e-5)
    assert (found.low_rank - L).norm() < 0.05 * L.norm()
    big = found.sparse.abs() > 5
    assert (big == (S > 0)).double().mean() > 0.999


def test_pursuit_refuses_and_warns():
    y = randn(5, 20)
    for options in ({"tau": 0.0}, {"lam": -1.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
            low_rank_plus_sparse(y, **({"tau": 1.0, "lam": 1.0} | options))
    with pytest.raises(ValueError, match="NaN"):
        low_rank_plus_sparse(y * math.nan, tau=1.0, lam=1.0)
    with pytest.warns(NotConvergedWarning, match="after 1 steps"):
        low_rank_plus_sparse(y, tau=0.1, lam=0.1, max_steps=1, rtol=1e-9)
