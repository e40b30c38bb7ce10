"""The training of DECSC, its shipped network, and the budgets that are recorded of it."""

import math

import pytest
import torch

from benchmarks.decsc import BUDGETS, along
from tutorial_lib.data import add_cube_noise, colour_cube
from tutorial_lib.fixed_points import Equilibrium, Solver
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.decsc import DECSC
from tutorial_lib.training.recipes import decsc as recipe
from tutorial_lib.whitening import whiten

BANDS = 5


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    for cached in (recipe.names, recipe.whitened):
        cached.cache_clear()
    yield
    for cached in (recipe.names, recipe.whitened):
        cached.cache_clear()


def test_training_crops_come_from_their_index(no_data):
    assert recipe.names() == ("bundled colour photographs as cubes", list(recipe.COLOURED), 0)
    both = recipe.batch(torch.tensor([3, 8]), size=16, scene=32)
    one = recipe.batch(torch.tensor([8]), size=16, scene=32)
    assert all(torch.equal(u[1], v[0]) for u, v in zip(both, one, strict=True))
    assert both.detail.shape == (2, 16, 16, 16) and both.truth.shape == (2, 31, 16, 16)
    assert math.isclose(sum(share for share, _, _ in recipe.NOISE), 1)


def test_a_crop_is_a_piece_of_a_whitened_scene(no_data, monkeypatch):
    monkeypatch.setattr(recipe, "FRESH", 0.0)
    x, found = recipe.whitened(3, 32)
    crop = recipe.batch(torch.tensor([3]), size=32, scene=32)
    levels = [c.flatten(1).norm(dim=1) for c in (found.detail, crop.detail[0])]
    assert torch.allclose(*levels, rtol=1e-4)  # turned, with signs
    assert torch.allclose(crop.truth[0].sum(), x.sum(), rtol=1e-5)
    assert torch.allclose(
        crop.cubes(crop.detail).square().sum(), found.cube(found.detail).square().sum(), rtol=1e-4
    )


def test_half_of_the_crops_have_white_noise_of_their_own(no_data, monkeypatch):
    monkeypatch.setattr(recipe, "FRESH", 1.0)
    crops = recipe.batch(torch.arange(0, 128, 8), size=32, scene=32)  # all of one scene
    images = torch.linalg.pinv(crops.spectra) @ crops.truth.flatten(2)
    noise = crops.detail - (images.view(crops.base.shape) - crops.base)
    assert abs(noise.std() - 1) < 0.01 and abs(noise.mean()) < 0.01
    scales = recipe.whitened(0, 32)[1].spectra.norm() / crops.spectra.flatten(1).norm(dim=1)
    assert 0.5 < scales.min() < 0.7 and 1.4 < scales.max() < 2
    again = crops.cubes(images.view(crops.base.shape) - crops.base)
    assert (again - crops.truth).square().mean() < 1e-4


def test_scenes_for_tests_are_never_trained_on(monkeypatch):
    scenes = ["balloons", "beads", "flowers", "oil_painting"]
    monkeypatch.setattr(recipe, "cave_scenes", lambda: scenes)
    asked = []
    monkeypatch.setattr(recipe, "bsds500", lambda part: asked.append(part) or [torch.zeros(1)])
    for cached in (recipe.names, recipe.photographs):
        cached.cache_clear()
    assert recipe.names() == ("1 scenes of CAVE, 2 photographs as cubes", ["beads"], 2)
    assert asked == ["train", "test"]  # BSD68 lies in the third part
    for cached in (recipe.names, recipe.photographs):
        cached.cache_clear()


def test_errors_are_measured_in_float32_whatever_the_precision_of_training():
    truth = torch.rand(1, 3, 8, 8)
    images = truth + 1e-2 * randn(*truth.shape)
    batch = recipe.Batch(images, torch.ones_like(truth), torch.eye(3)[None], truth + 1)
    with torch.autocast("cpu", torch.bfloat16):
        error = recipe.error(batch, images)
    assert torch.allclose(-error, psnr(images, truth).mean(1), atol=0.05)


@pytest.mark.parametrize("a", [0.5, 1.2])
def test_the_loss_is_minus_psnr_with_a_price_on_growing_steps(monkeypatch, a):
    detail = randn(2, BANDS, 16, 16)
    batch = recipe.Batch(detail, torch.zeros_like(detail), torch.eye(BANDS).repeat(2, 1, 1), detail)
    batch = batch._replace(truth=detail + 0.1 * randn(*detail.shape, seed=1))
    assert torch.allclose(-recipe.error(batch, detail), psnr(detail, batch.truth).mean(1))
    asked = []

    def stays(f, z, *, solver, gradient):
        asked.append(solver.max_steps)
        return Equilibrium(z, None)

    class Line(DECSC):
        """z -> a z + 1: every step is a times the one before."""

        def problem(self, y):
            return lambda z: (a * z[0] + 1,), (y,)

        def cubes(self, z):
            return z[0]

    monkeypatch.setattr(recipe, "equilibrium", stays)
    line = Line(BANDS, maps=4, volumes=4)
    last = a * (a * detail + 1) + 1
    for step in range(7, 25):
        expected = recipe.error(batch, last).mean() + max(a - 0.95, 0.0)
        found = recipe.loss(line, batch, step, deep=16)
        assert torch.isclose(found, expected, atol=1e-3)
    assert asked == [2, 3, 4, 5, 6, 7, 8, 2, 3, 11, 12, 4, 5, 6, 7, 8, 9, 10]


def test_the_gradient_reaches_every_parameter(no_data):
    torch.manual_seed(0)
    net = DECSC()
    assert sum(p.numel() for p in net.parameters()) == 249_408
    crops = recipe.batch(torch.arange(1), size=16, scene=32)
    recipe.loss(net, crops, 2, deep=3).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_the_shipped_network_denoises_a_cube_that_is_no_scene():
    x = colour_cube("chelsea", size=32)
    y = add_cube_noise(x, "noniid", sigma=95 / 255, seed=1).cube
    white = whiten(y)
    found, _ = recipe.trained().restore(white.detail[None], solver=Solver(rtol=0.0, max_steps=6))
    assert psnr(white.cube(found[0]), x).mean() > psnr(y, x).mean() + 10


def test_recorded_budgets_are_what_a_solver_with_that_budget_returns():
    net = DECSC().requires_grad_(False)
    x = colour_cube("chelsea", size=16)
    white = whiten(add_cube_noise(x, "noniid", sigma=55 / 255, seed=1).cube)
    record = along(net, white, x)
    assert tuple(record) == BUDGETS
    for n in (1, 3, 10):
        z, info = net.solve(white.detail[None], solver=Solver(rtol=0.0, max_steps=n))
        level = psnr(white.cube(net.cubes(z)[0]), x).mean()
        assert abs(level - record[n][0]) < 0.01
        assert math.isclose(info.residual.item(), record[n][1], rel_tol=1e-3)
