"""Cubes as eigenimages: white noise of level 1 over a smooth base, and the way back."""

import math

import pytest
import torch
from low_rank_cases import randn

from tutorial_lib import whitening
from tutorial_lib.damaged_cubes import restore_damaged
from tutorial_lib.whitening import whiten

BANDS = 12
LEVELS = torch.logspace(-2, -0.5, BANDS)[torch.randperm(BANDS, generator=torch.manual_seed(0))]


def scene(bands=BANDS, side=48):
    """Rank 3, smooth, and flat at its borders: what the low-pass of the base keeps."""
    half = torch.cos(torch.pi * (torch.arange(side) + 0.5) / side)
    rows, columns = torch.meshgrid(half, half, indexing="ij")
    maps = torch.stack([rows, rows * columns, torch.ones_like(rows)]) / 2
    mix = 0.2 + 0.8 * torch.rand(bands, 3, generator=torch.Generator().manual_seed(1))
    return torch.einsum("bk,khw->bhw", mix, maps)


CLEAN = scene()
NOISY = CLEAN + LEVELS[:, None, None] * randn(*CLEAN.shape, dtype=torch.float32)


def repaired(y):
    """What the eigenimages are made of."""
    found = restore_damaged(y)
    return torch.where(found.stuck, found.cube, y - found.offsets[:, None]), found.sigma


def test_the_noise_is_white_and_of_level_one_whatever_the_levels_of_the_bands():
    """Its covariance is the identity, but for the error of the levels that were measured."""
    assert LEVELS.max() > 30 * LEVELS.min()
    w = whiten(NOISY, count=BANDS)
    sigma = repaired(NOISY)[1]
    U = w.spectra / sigma[:, None]
    scene_part = torch.einsum("bk,bhw->khw", U, CLEAN / sigma[:, None, None])
    noise = w.detail + w.base - scene_part
    covariance = noise.flatten(1) @ noise.flatten(1).T / noise[0].numel()
    assert torch.allclose(covariance, U.T @ (LEVELS / sigma).square().diag() @ U, atol=0.12)
    assert torch.allclose(covariance, torch.eye(BANDS), atol=0.45)
    beside = (noise[:, :, 1:] * noise[:, :, :-1]).mean((1, 2))  # nor does it know its neighbours
    assert beside.abs().max() < 0.1


def test_images_are_ordered_by_their_energy_and_spectra_orthogonal_in_units_of_the_noise():
    w = whiten(NOISY, count=6)
    U = w.spectra / repaired(NOISY)[1][:, None]
    assert torch.allclose(U.T @ U, torch.eye(6), atol=1e-4)
    energy = (w.base + w.detail).square().sum((1, 2))
    assert (energy.diff() < 0).all() and energy[0] > 10 * energy[3]  # three are signal


def test_all_images_together_are_the_repaired_cube():
    y = NOISY.clone()
    y[2, :, 9] = 0.0  # a dead line
    w = whiten(y, count=BANDS)
    expected, sigma = repaired(y)
    assert torch.allclose(w.cube(w.detail), expected, atol=1e-4)
    assert (expected[2, :, 9] != 0).all()
    few = whiten(y, count=5)  # what is dropped is orthogonal to what is kept
    lost = ((expected - few.cube(few.detail)) / sigma[:, None, None]).flatten(1)
    U = few.spectra / sigma[:, None]
    assert lost.norm() > 10 and (U.T @ lost).norm() < 1e-3 * lost.norm()


def test_wavelets_alone_give_the_estimate_of_restore_damaged():
    """`first` is that estimate in these coordinates: all of it, where no dimension is dropped."""
    w = whiten(NOISY, count=BANDS)
    assert torch.allclose(w.cube(w.first), restore_damaged(NOISY).cube, atol=1e-4)
    assert w.first[3:].std() < 0.1 * w.detail[3:].std()  # nothing but noise


def test_images_beyond_the_bands_are_zero():
    w, more = whiten(NOISY, count=BANDS), whiten(NOISY, count=BANDS + 4)
    for one, other in zip(
        (w.detail, w.base, w.first), (more.detail, more.base, more.first), strict=True
    ):
        assert torch.equal(other[BANDS:], torch.zeros(4, 48, 48))
        assert torch.allclose(other[:BANDS], one, atol=1e-5)
    changed = more.detail.clone()
    changed[BANDS:] = randn(4, 48, 48, dtype=torch.float32)
    assert torch.equal(more.cube(changed), more.cube(more.detail))


def test_the_base_is_smooth_and_holds_a_smooth_scene():
    """Without the finest texture, which is all in `detail`."""
    signs = 1.0 - 2.0 * (torch.arange(48)[:, None] + torch.arange(48)).remainder(2)
    w = whiten(NOISY + 0.1 * signs, count=1)
    texture = [(v * signs).mean().abs() for v in (w.base, w.detail)]
    assert texture[0] < 0.01 * texture[1] and texture[1] > 5
    w = whiten(NOISY, count=3)
    error = (w.cube(torch.zeros_like(w.detail)) - CLEAN).square().mean().sqrt()
    assert error < 0.1 * (NOISY - CLEAN).square().mean().sqrt()


def test_a_constant_cube_is_all_base():
    w = whiten(torch.full((4, 16, 16), 0.5), count=4)
    assert w.detail.abs().max() < 1e-2 * w.base.abs().max()
    assert torch.allclose(w.cube(torch.zeros_like(w.detail)), torch.tensor(0.5), atol=1e-3)


def test_a_singular_vector_of_the_other_sign_turns_all_of_its_image(monkeypatch):
    """Then the cube is the same, also of what an odd function makes of the details."""
    w = whiten(NOISY, count=5)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    usual = whitening.signal_subspace
    monkeypatch.setattr(whitening, "signal_subspace", lambda z, rank: sign * usual(z, rank=rank))
    turned = whiten(NOISY, count=5)
    for one, other in ((w.detail, turned.detail), (w.base, turned.base), (w.first, turned.first)):
        assert torch.allclose(sign[:, None, None] * one, other, atol=1e-5)
    assert torch.allclose(w.cube(w.detail.sin()), turned.cube(turned.detail.sin()), atol=1e-5)


@pytest.mark.parametrize(
    ("y", "count", "message"),
    [
        (NOISY, 0, "count = 0: at least 1"),
        (NOISY[:3], 4, "4 bands of 16 x 16"),
        (NOISY[:, :15], 4, "4 bands of 16 x 16"),
        (NOISY[0], 4, "expected a cube"),
        (NOISY * math.nan, 4, "NaN"),
    ],
)
def test_refusals(unchecked, y, count, message):
    with pytest.raises(ValueError, match=message):
        whiten(y, count=count)
