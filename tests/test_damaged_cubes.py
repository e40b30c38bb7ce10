"""Damaged cubes: what is found, and that the rest is enough."""

import math

import pytest
import torch
from low_rank_cases import CUBE, randn

from tutorial_lib.damaged_cubes import (
    masked_sigma,
    restore_damaged,
    striped_columns,
    stuck_samples,
)
from tutorial_lib.data import add_cube_noise
from tutorial_lib.low_rank import denoise_low_rank
from tutorial_lib.metrics import psnr
from tutorial_lib.thresholding import estimate_sigma

ALL = torch.ones_like(CUBE, dtype=torch.bool)


def test_stuck_samples_are_those_that_repeat():
    y = randn(2, 40, 50)
    struck = randn(40, 50, seed=1) > 0.5
    y[1][struck] = 1.0
    found = stuck_samples(y)
    assert not found[0].any() and torch.equal(found[1], struck)


def test_a_picture_of_few_levels_and_a_constant_band_are_not_stuck():
    levels = (10 * torch.rand(1, 40, 50)).floor()
    assert not stuck_samples(levels).any()
    assert not stuck_samples(torch.full((1, 40, 50), 0.3)).any()


def test_the_level_of_what_is_there():
    x = 0.2 * randn(3, 128, 128)
    keep = randn(3, 128, 128, seed=1) > torch.tensor([-9.0, 0.0, 0.5]).double()[:, None, None]
    assert torch.allclose(masked_sigma(x, keep), torch.full((3,), 0.2).double(), rtol=0.06)
    whole = masked_sigma(x, torch.ones_like(keep))
    assert torch.allclose(whole, estimate_sigma(x), rtol=0.03)


@pytest.mark.parametrize("size", [0.1, -0.2])
def test_stripes_are_found_and_edges_are_not(size):
    """The scene has edges of full height in all bands; a stripe is in one."""
    x = CUBE.clone()
    x[:, :, 32:] += 0.5
    y = x + 0.05 * randn(20, 64, 64, dtype=torch.float32)
    y[4, :, 20] += size
    found = striped_columns(y, ALL, torch.full((20,), 0.05))
    assert found[4, 20]
    assert found.sum() <= 2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mixture_is_restored(seed):
    noisy = add_cube_noise(CUBE, "mixture", sigma=55 / 255, seed=seed)
    found = restore_damaged(noisy.cube)
    ours, plain = (psnr(x, CUBE).mean() for x in (found.cube, denoise_low_rank(noisy.cube).cube))
    assert ours > plain + 8
    lost = torch.zeros_like(ALL)
    for b in noisy.hit["impulse"] + noisy.hit["deadlines"]:
        lost[b] = (noisy.cube[b] == 0) | (noisy.cube[b] == 1)
    assert torch.equal(found.stuck, lost)
    untouched = sorted(set(range(20)) - set(noisy.hit["stripes"]))
    assert (found.offsets[untouched] != 0).float().mean() < 0.01


def test_offsets_are_measured():
    y = CUBE + 0.03 * randn(20, 64, 64, dtype=torch.float32)
    y[6, :, 30] += 0.2
    offset = restore_damaged(y).offsets[6, 30]
    assert offset == pytest.approx(0.2, abs=4 * 1.25 * 0.03 / 8)


def test_without_damage_little_is_lost():
    noisy = add_cube_noise(CUBE, "noniid", sigma=95 / 255, seed=2).cube
    found = restore_damaged(noisy)
    assert not found.stuck.any()
    plain = psnr(denoise_low_rank(noisy).cube, CUBE).mean()
    assert psnr(found.cube, CUBE).mean() > plain - 1


def test_the_levels_pay():
    noisy = add_cube_noise(CUBE, "mixture", sigma=95 / 255, seed=0).cube
    falling = restore_damaged(noisy).cube
    assert not torch.allclose(falling, restore_damaged(noisy, levels=(1.0,)).cube)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (CUBE[0], {}, "expected a cube"),
        (CUBE[:3], {}, "4 bands"),
        (CUBE[:, :10], {}, "16 x 16"),
        (CUBE * math.nan, {}, "NaN"),
        (CUBE, {"levels": ()}, "levels = "),
        (CUBE, {"levels": (2.0, 0.5)}, "at least 1"),
    ],
)
def test_refusals(unchecked, y, options, message):
    with pytest.raises(ValueError, match=message):
        restore_damaged(y, **options)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_a_slope_at_the_border_is_no_stripe(power):
    side, g = 48, torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(*[torch.linspace(0, 1, side)] * 2, indexing="ij")
    maps = torch.stack([rows, columns**power, rows * columns**power])
    x = torch.einsum("bk,khw->bhw", 0.2 + 0.8 * torch.rand(12, 3, generator=g), maps)
    levels = torch.logspace(-2.5, -2, 12)
    y = x + levels[:, None, None] * torch.randn(x.shape, generator=g)
    assert not striped_columns(y, torch.ones_like(y, dtype=torch.bool), levels).any()
