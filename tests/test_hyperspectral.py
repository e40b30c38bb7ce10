"""Cubes: readers, noise cases against their parameters, spectral metrics by hand."""

import math

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from tutorial_lib.data import (
    CASES,
    add_cube_noise,
    cave,
    data_dir,
    false_colour,
    read_cube,
    real_cube,
    write_image,
)
from tutorial_lib.metrics import ergas, psnr, sam

CUBE = torch.full((31, 60, 80), 0.5, dtype=torch.float64)


def test_levels_of_the_gaussian_cases():
    iid = add_cube_noise(CUBE, "iid", sigma=0.1)
    assert torch.equal(iid.sigma, torch.full((31,), 0.1, dtype=torch.float64)) and not iid.hit
    many = torch.zeros(3000, 2, 2)
    noniid = add_cube_noise(many, "noniid", sigma=0.3).sigma
    assert 0 <= noniid.min() < 0.01 and 0.29 < noniid.max() <= 0.3
    assert noniid.mean().item() == pytest.approx(0.15, abs=0.01)
    correlated = add_cube_noise(CUBE, "correlated").sigma * 255
    b = torch.arange(31, dtype=torch.float64)
    assert torch.allclose(correlated, 23.08 * torch.exp(-((b / 31 - 0.5) ** 2) / 0.098596))


@pytest.mark.parametrize("case", ["iid", "noniid", "correlated"])
def test_noise_has_the_level_that_is_returned_and_is_white(case):
    noisy = add_cube_noise(CUBE, case, sigma=None if case == "correlated" else 0.2, seed=3)
    n = noisy.cube - CUBE
    assert torch.allclose(n.std((1, 2)), noisy.sigma, rtol=0.06)
    assert noisy.cube.max() > 1 or case == "correlated"  # not clipped
    z = (n / noisy.sigma[:, None, None]).flatten(1)
    assert (z @ z.T / z.shape[1] - torch.eye(31)).abs().max() < 0.08  # bands independent
    assert (z[:, 1:] * z[:, :-1]).mean().abs() < 0.01


@pytest.mark.parametrize("case", CASES[3:])
def test_damage_keeps_its_parameters(case):
    clean = torch.full((31, 50, 200), 0.5, dtype=torch.float64)
    y, sigma, hit = add_cube_noise(clean, case, sigma=0.0, seed=5)
    assert not sigma.any()
    assert set(hit) == ({"stripes", "deadlines", "impulse"} if case == "mixture" else {case})
    bands = [b for kind in hit.values() for b in kind]
    assert len(bands) == len(set(bands)) == 10 * len(hit)  # disjoint thirds of 31
    untouched = sorted(set(range(31)) - set(bands))
    assert torch.equal(y[untouched], clean[untouched])
    for b in hit.get("stripes", []):
        offsets = y[b] - 0.5
        assert torch.equal(offsets, offsets[:1].expand_as(offsets))  # whole columns
        assert 10 <= (offsets[0] != 0).sum() <= 30 and offsets.abs().max() <= 0.25
    for b in hit.get("deadlines", []):
        columns = (y[b] == 0).all(0)
        assert 10 <= columns.sum() <= 30 and (y[b][:, ~columns] == 0.5).all()
    densities = []
    for b in hit.get("impulse", []):
        assert set(y[b].unique().tolist()) <= {0.0, 0.5, 1.0}
        salt, pepper = ((y[b] == v).double().mean().item() for v in (1.0, 0.0))
        assert salt == pytest.approx(pepper, abs=0.02)
        densities.append(min((abs(salt + pepper - d), d) for d in (0.1, 0.3, 0.5, 0.7)))
    assert all(miss < 0.02 for miss, _ in densities)
    assert not densities or len({d for _, d in densities}) > 1


def test_the_seed_decides_all_and_precision_nothing():
    a, b = (add_cube_noise(CUBE, "mixture", sigma=0.3, seed=s) for s in (1, 1))
    c = add_cube_noise(CUBE.float(), "mixture", sigma=0.3, seed=1)
    d = add_cube_noise(CUBE, "mixture", sigma=0.3, seed=2)
    assert torch.equal(a.cube, b.cube) and a.hit == b.hit == c.hit != d.hit
    assert c.cube.dtype == torch.float32
    assert torch.allclose(c.cube.double(), a.cube, atol=1e-6)
    assert not torch.equal(a.cube, d.cube)


def test_published_psnr_of_noisy_cubes():
    """20 log10(255/30) = 18.59 dB at sigma 30, unclipped."""
    noisy = add_cube_noise(CUBE, "iid", sigma=30 / 255).cube
    assert psnr(noisy, CUBE).mean().item() == pytest.approx(18.59, abs=0.02)


@pytest.mark.parametrize(
    ("x", "case", "sigma", "message"),
    [
        (CUBE, "gauss", 0.1, "unknown case 'gauss': known are iid"),
        (CUBE, "iid", None, "needs one"),
        (CUBE, "iid", -0.1, "at least 0"),
        (CUBE, "correlated", 0.1, "has its own"),
        (CUBE[:2], "mixture", 0.1, "2 bands"),
        (CUBE * math.nan, "iid", 0.1, "without NaN"),
    ],
)
def test_noise_refuses(x, case, sigma, message):
    with pytest.raises(ValueError, match=message):
        add_cube_noise(x, case, sigma=sigma)


# Metrics -----------------------------------------------------------------------------------------


def test_spectral_angle():
    r = torch.rand(31, 9, 7, dtype=torch.float64) + 0.1
    assert sam(3 * r, r) < 1e-6  # brightness does not count
    angle = 0.3
    side = torch.randn(31, 9, 7, dtype=torch.float64)
    side -= (side * r).sum(0) / r.square().sum(0) * r  # orthogonal to each spectrum
    turned = math.cos(angle) * r / r.norm(dim=0) + math.sin(angle) * side / side.norm(dim=0)
    assert sam(turned, r).item() == pytest.approx(angle, abs=1e-9)
    assert sam(0 * r, r).item() == pytest.approx(math.pi / 2)


def test_spectral_angle_leaves_black_pixels_out():
    r = torch.full((31, 4, 4), 0.5)
    r[:, :2] = 1e-3
    x = r.clone()
    x[:16, :2] = 0  # the black ones wrong by 45 degrees or so
    assert sam(x, r) < 1e-3 < 0.3 < sam(x, r, least=0.0)
    assert sam(x[:, :2], r[:, :2]).isnan()
    with pytest.raises(ValueError, match="least = -1"):
        sam(x, r, least=-1.0)


def test_ergas_is_relative_to_the_mean_of_each_band():
    r = torch.tensor([0.2, 0.4])[:, None, None].expand(2, 5, 5)
    x = r + torch.tensor([0.02, 0.08])[:, None, None]
    assert ergas(x, r).item() == pytest.approx(100 * math.sqrt((0.1**2 + 0.2**2) / 2), rel=1e-5)
    assert ergas(10 * x, 10 * r).item() == pytest.approx(ergas(x, r).item(), rel=1e-5)
    with pytest.raises(ValueError, match="mean 0"):
        ergas(x, 0 * r)


# Readers -----------------------------------------------------------------------------------------

LEVELS = np.random.default_rng(0).integers(1, 4000, (5, 6, 7)).astype(np.uint16)


def test_mat_files_of_both_versions_and_the_peak(tmp_path):
    scipy.io.savemat(tmp_path / "five.mat", {"cube": LEVELS.transpose(1, 2, 0)})
    with h5py.File(tmp_path / "seven.mat", "w") as file:
        file["cube"] = LEVELS.transpose(1, 2, 0).T
    for name in ("five", "seven"):
        cube = read_cube(tmp_path / f"{name}.mat")
        assert cube.shape == (5, 6, 7) and cube.max() == 1
        assert np.allclose(cube * LEVELS.max(), LEVELS, atol=1e-3)
        assert np.allclose(
            read_cube(tmp_path / f"{name}.mat", peak=4000.0) * 4000, LEVELS, atol=1e-3
        )


def test_matrices_are_unrolled_column_by_column(tmp_path):
    matrix = LEVELS.transpose(0, 2, 1).reshape(5, 42)  # pixel (i, j) in column i + 6 j
    np.save(tmp_path / "m.npy", matrix)
    cube = read_cube(tmp_path / "m.npy", shape=(6, 7), peak=1.0)
    assert np.array_equal(cube.numpy(), LEVELS)
    with pytest.raises(ValueError, match=r"\(bands, 7 x 7\)"):
        read_cube(tmp_path / "m.npy", shape=(7, 7))
    with pytest.raises(ValueError, match="needs shape="):
        read_cube(tmp_path / "m.npy")


def test_folders_of_bands_and_floats(tmp_path):
    cube = torch.rand(4, 8, 9)
    folder = tmp_path / "scene"
    folder.mkdir()
    for k, band in enumerate(cube):
        write_image(folder / f"band_{k:02}.png", band, bits=16)
    assert torch.allclose(read_cube(folder), cube, atol=1e-5)
    np.save(tmp_path / "x.npy", 1.3 * cube.numpy())  # noisy intensities stay as they are
    assert torch.allclose(read_cube(tmp_path / "x.npy"), 1.3 * cube)
    write_image(folder / "band_03.png", cube[0, :5], bits=16)
    with pytest.raises(ValueError, match="different sizes"):
        read_cube(folder)
    with pytest.raises(FileNotFoundError, match="holds 0 images"):
        read_cube(tmp_path)


@pytest.mark.parametrize("bad", [np.zeros((3, 4, 4)) + np.nan, np.zeros((1, 4, 4))])
def test_what_is_no_cube_is_refused(tmp_path, bad):
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(ValueError, match="bad.npy"):
        read_cube(tmp_path / "bad.npy")
    np.save(tmp_path / "dark.npy", np.full((3, 4, 4), -5.0))
    with pytest.raises(ValueError, match="largest value is -5"):
        read_cube(tmp_path / "dark.npy")
    with pytest.raises(ValueError, match="peak = 0"):
        read_cube(tmp_path / "dark.npy", peak=0.0)


def test_false_colour_takes_three_bands():
    cube = torch.rand(31, 5, 5)
    assert false_colour(cube, bands=(3, 2, 1))[1].argmax() == cube[2].argmax()
    assert false_colour(cube).shape == (3, 5, 5)
    with pytest.raises(ValueError, match="the cube has 31"):
        false_colour(cube, bands=(31, 2, 1))


@pytest.mark.data
@pytest.mark.skipif(not (data_dir() / "CAVE").is_dir(), reason="CAVE is not on disk")
def test_cave_and_real_cubes():
    scene = cave("balloons")
    folder = data_dir() / "CAVE" / "complete_ms_data" / "balloons_ms"
    assert torch.equal(
        read_cube(folder if list(folder.glob("*.png")) else folder / folder.name), scene
    )
    assert scene.shape == (31, 512, 512) and 0 <= scene.min() < scene.max() <= 1
    sizes = {"hydice": (162, 100, 80), "jasper_ridge": (198, 100, 100)}
    sizes["hyperion_paris"] = (128, 72, 72)
    for name, shape in sizes.items():
        cube = real_cube(name)
        assert cube.shape == shape and cube.max() == 1
        # neighbours in space resemble each other only if the axes are right
        near = torch.corrcoef(torch.stack([cube[50, 1:].flatten(), cube[50, :-1].flatten()]))[0, 1]
        assert near > 0.6
    with pytest.raises(ValueError, match="known are hydice"):
        real_cube("indian_pines")
