"""Cubes on the command line: files in and out, tiles of eigenimages, scores, refusals."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import avg_pool2d

from tutorial_lib import __main__ as command_line
from tutorial_lib.data import add_cube_noise, photograph, read_cube, write_image
from tutorial_lib.data.cube_files import read_samples, write_cube
from tutorial_lib.fixed_points import Info
from tutorial_lib.metrics import psnr, sam, ssim
from tutorial_lib.training import cubes, recipes
from tutorial_lib.training.cube_tiles import DenoisedCube, Tile, denoise_cube, report
from tutorial_lib.training.cubes import for_cubes, white
from tutorial_lib.whitening import whiten

RECIPES = Path(__file__).with_name("cube_recipes")
LEVELS = np.random.default_rng(0).integers(200, 4000, (31, 40, 36)).astype(np.uint16)


@pytest.fixture
def run(run, monkeypatch):
    """The command line, with the recipe stand_in."""
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(RECIPES)])
    monkeypatch.setitem(command_line.METHODS, "stand_in", "a mean")
    return run


@pytest.fixture(scope="module")
def scene():
    """31 bands that are mixtures of four photographs, (31, 72, 56), largest value 1."""
    names = ("astronaut", "coffee", "chelsea", "coins")
    parts = torch.stack([photograph(name, size=72)[:, :56] for name in names])
    mix = torch.rand(31, 4, generator=torch.Generator().manual_seed(0))
    x = torch.einsum("bk,khw->bhw", mix, parts)
    return x / x.max()


class Instant(nn.Module):
    """A function of a batch of images, instantly in equilibrium."""

    bands = 8

    def __init__(self, f):
        super().__init__()
        self.f, self.batches = f, []

    def restore(self, Y):
        self.batches.append(Y)
        b = len(Y)
        info = Info(
            torch.zeros(b), torch.zeros(b), torch.zeros(1, b), torch.ones(b).int(), 1,
            torch.ones(b).bool(), ["converged"] * b,
        )  # fmt: skip
        return self.f(Y), info


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# Reading and writing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((512, 400, 31), 2), ((64, 64, 31), 2), ((33, 35, 31), 2), ((48, 31, 40), 1),
        ((300, 280, 46), 2), ((162, 100, 80), None), ((198, 100, 100), None),
        ((128, 72, 72), None), ((224, 250, 190), None), ((31, 24, 16), None),
        ((31, 512, 512), None),
    ],
)  # fmt: skip
def test_an_axis_that_looks_like_the_spectrum_is_named(tmp_path, shape, named):
    path = tmp_path / "x.npy"
    np.save(path, np.broadcast_to(np.float16(0.5), shape))
    if named is None:
        assert read_samples(path).shape == shape
        return
    with pytest.raises(ValueError, match=rf"number {named}, of length {shape[named]}, looks"):
        read_samples(path)
    assert read_samples(path, bands_axis=named).shape[0] == shape[named]
    assert read_samples(path, bands_axis=0).shape == shape  # insisted on


def test_matlab_files_have_the_spectrum_last(tmp_path):
    scipy.io.savemat(tmp_path / "right.mat", {"x": LEVELS.transpose(1, 2, 0)})
    scipy.io.savemat(tmp_path / "wrong.mat", {"x": LEVELS})
    with h5py.File(tmp_path / "wrong7.mat", "w") as file:
        file["x"] = LEVELS.T
    assert np.array_equal(read_samples(tmp_path / "right.mat"), LEVELS)
    for name in ("wrong", "wrong7"):
        path = tmp_path / f"{name}.mat"
        with pytest.raises(ValueError, match="of length 31, looks like it: say --bands-axis 0"):
            read_samples(path)
        assert np.array_equal(read_samples(path, bands_axis=0), LEVELS)
        assert read_cube(path, bands_axis=0).max() == 1


def test_four_bands_last_are_not_taken_for_rows(tmp_path):
    np.save(tmp_path / "x.npy", LEVELS[:4].transpose(1, 2, 0))
    assert np.array_equal(read_samples(tmp_path / "x.npy", bands_axis=2), LEVELS[:4])


def store(path, kind, levels):
    """A cube in a file of the given kind."""
    if kind == "mat5":
        scipy.io.savemat(path / "in.mat", {"x": levels.transpose(1, 2, 0)})
    elif kind == "mat73":
        with h5py.File(path / "in.mat", "w") as file:
            file["x"] = levels.transpose(1, 2, 0).T
    elif kind == "npy":
        np.save(path / "in.npy", levels)
    elif kind == "tif":
        tifffile.imwrite(path / "in.tif", levels, photometric="minisblack")
    else:
        (path / "in").mkdir()
        for k, band in enumerate(levels):
            Image.fromarray(band).save(path / f"in/b_{k:02}.png")
    return path / {"mat5": "in.mat", "mat73": "in.mat", "folder": "in"}.get(kind, f"in.{kind}")


@pytest.mark.parametrize("out", ["out.mat", "out.npy", "out.tif"])
@pytest.mark.parametrize("kind", ["mat5", "mat73", "npy", "tif", "folder"])
def test_every_format_keeps_the_samples_and_their_unit(run, tmp_path, kind, out):
    source = store(tmp_path, kind, LEVELS)
    code, told, _ = run("denoise", source, tmp_path / out, "--sigma", "0")
    assert (code, told.count("\n")) == (0, 1)
    written = read_samples(tmp_path / out)
    integers = kind == "tif" and out == "out.tif"
    assert written.dtype == (np.uint16 if integers else np.float32)
    assert f"31 bands of 36 x 40, wavelet, uint16 with {white(LEVELS):.6g} as 1 (estimated)" in told
    assert np.allclose(written, LEVELS, rtol=1e-5, atol=0.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_of_one_page_with_many_samples(tmp_path, dtype):
    levels = (LEVELS % 256).astype(dtype)
    tifffile.imwrite(
        tmp_path / "x.tif", levels.transpose(1, 2, 0), photometric="minisblack",
        planarconfig="contig",
    )  # fmt: skip
    assert np.array_equal(read_samples(tmp_path / "x.tif"), levels)


def test_integers_are_rounded_and_clipped(tmp_path):
    cube = torch.tensor([-3.0, 7.6, 300.0]).reshape(3, 1, 1).expand(3, 2, 2)
    write_cube(tmp_path / "x.tif", cube, dtype="uint8")
    assert read_samples(tmp_path / "x.tif")[:, 0, 0].tolist() == [0, 8, 255]


def test_doubles_come_back_as_floats_in_their_range(run, tmp_path, scene):
    np.save(tmp_path / "in.npy", 1e-3 * scene.double().numpy())
    assert run("denoise", tmp_path / "in.npy", tmp_path / "out.npy", "--sigma", "0")[0] == 0
    written = np.load(tmp_path / "out.npy")
    assert written.dtype == np.float32
    assert np.allclose(written, 1e-3 * scene.numpy(), atol=1e-8)


def test_the_unit_does_not_matter(run, tmp_path, scene):
    """Levels below 1e-3 of white count as 1e-3: a cube in another unit needs the scaling."""
    y = add_cube_noise(scene, "noniid", sigma=0.2).cube.numpy()
    results = []
    for name, gain in (("a", 1.0), ("b", 2.0**11), ("c", 2.0**-13)):
        np.save(tmp_path / f"{name}.npy", gain * y)
        words = (tmp_path / f"{name}.npy", tmp_path / f"{name}_out.npy", "--method", "stand_in")
        assert run("denoise", *words)[0] == 0
        results.append(np.load(tmp_path / f"{name}_out.npy") / gain)
    assert np.allclose(results[0], results[1], atol=1e-6)
    assert np.allclose(results[0], results[2], atol=1e-6)
    one = denoise_cube(recipes.find("stand_in").trained(), torch.from_numpy(2.0**-13 * y)).cube
    assert np.abs(2.0**13 * one.numpy() - results[0]).max() > 0.01


def test_a_given_peak_is_what_becomes_one(run, tmp_path, monkeypatch):
    def half(network, y, **_):
        seen.append(y.clone())
        return DenoisedCube(y / 2, [])

    np.save(tmp_path / "in.npy", LEVELS)
    monkeypatch.setattr(cubes, "denoise_cube", half)
    for peak in (1000, 10000):
        seen = []
        words = (tmp_path / "in.npy", tmp_path / "out.npy", "--method", "stand_in")
        told = run("denoise", *words, "--peak", peak)[1]
        assert f"uint16 with {peak} as 1 (given)" in told
        assert np.allclose(seen[0], LEVELS / peak)
        assert np.allclose(np.load(tmp_path / "out.npy"), LEVELS / 2)


def test_white_is_robust_and_follows_the_unit(scene):
    x = scene.numpy()
    y = add_cube_noise(scene, "mixture", sigma=95 / 255).cube.numpy()
    assert 0.5 < white(x) <= 1
    assert 0.9 < white(y) < 1.2 < np.quantile(y, 0.999)
    assert white(100 * y) == pytest.approx(100 * white(y))
    hot = x.copy()
    hot[:, ::6, ::6] = 50.0
    assert white(hot) < 1


def test_one_of_several_arrays_is_chosen_by_key(run, tmp_path):
    cube = LEVELS.transpose(1, 2, 0)
    words = ["denoise", tmp_path / "in.mat", tmp_path / "out.mat", "--sigma", "0"]
    scipy.io.savemat(tmp_path / "in.mat", {"rad": cube, "rgb": cube[:, :, :3]})
    code, _, err = run(*words)
    assert (code, "['rad', 'rgb']; denoise has --key" in err) == (2, True)
    assert run(*words, "--key", "rad")[0] == 0
    assert np.allclose(read_samples(tmp_path / "out.mat"), LEVELS, rtol=1e-5)


def test_a_map_beside_the_cube_is_no_cube(run, tmp_path):
    scipy.io.savemat(tmp_path / "in.mat", {"x": LEVELS.transpose(1, 2, 0), "map": LEVELS[0]})
    assert np.array_equal(read_samples(tmp_path / "in.mat"), LEVELS)
    assert run("denoise", tmp_path / "in.mat", tmp_path / "out.npy")[0] == 0


def test_half_precision_is_read_without_more_loss(tmp_path):
    levels = LEVELS.astype(np.float16)
    np.save(tmp_path / "x.npy", levels)
    expected = levels.astype(np.float64) / 4000
    assert np.allclose(read_cube(tmp_path / "x.npy", peak=4000.0), expected, rtol=1e-6)


def test_wavelets_remove_noise_and_low_rank_more(run, tmp_path, scene):
    y = add_cube_noise(scene, "noniid", sigma=55 / 255).cube
    np.save(tmp_path / "in.npy", y.numpy())
    code, out, err = run("denoise", tmp_path / "in.npy", tmp_path / "out.npy")
    assert (code, out.count("\n")) == (0, 1)
    assert re.search(r"31/31 \[\d\d:\d\d<\d\d:\d\d", err)
    cleaned = torch.from_numpy(np.load(tmp_path / "out.npy"))
    by_bands = psnr(cleaned, scene).mean()
    assert by_bands > psnr(y, scene).mean() + 3
    words = (tmp_path / "in.npy", tmp_path / "out.npy", "--method", "lowrank")
    code, out, err = run("denoise", *words)
    assert (code, err, out.count("\n")) == (0, "", 1)
    cleaned = torch.from_numpy(np.load(tmp_path / "out.npy"))
    assert psnr(cleaned, scene).mean() > by_bands + 3
    code, _, err = run("denoise", *words, "--sigma", "20")
    assert (code, "--sigma 20: lowrank finds the noise of each band itself" in err) == (2, True)


def test_methods_of_the_command_are_known_and_told_apart(run):
    cubes_only = {name: for_cubes(name) for name in command_line.METHODS}
    expected = {"wavelet": False, "winnet": False, "lowrank": True, "decsc": True}
    assert cubes_only.items() >= expected.items()


# Tiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(31, 64, 64), (4, 100, 80), (31, 19, 200), (40, 70, 37), (162, 16, 18)]
)
def test_tiles_of_a_pointwise_function_are_the_whole(shape):
    """Of any number of bands from 4; sizes that no tile divides."""
    y = noise(*shape)
    whitened = whiten(y, count=8)
    cube, tiles = denoise_cube(Instant(torch.sin), y)
    torch.testing.assert_close(cube, whitened.cube(whitened.detail.sin()))
    assert len(tiles) == {64: 1, 100: 4, 19: 4, 70: 2, 16: 1}[shape[1]]


def test_tiles_of_a_local_filter_are_nearly_the_whole(scene):
    """A mean over 5 x 5 pixels is wrong at the borders of tiles, where they hardly count."""

    def mean(Y):
        return avg_pool2d(Y, 5, 1, 2, count_include_pad=False)

    y = scene + 0.1 * noise(*scene.shape)
    whitened = whiten(y, count=8)
    whole = whitened.cube(mean(whitened.detail[None])[0])
    for overlap, bound in ((16, 5e-3), (0, None)):
        result = denoise_cube(Instant(mean), y, tile=32, overlap=overlap).cube
        difference = (result - whole).abs().max()
        assert difference < bound if bound else difference > 2e-2  # without overlap: seams


def test_a_tile_of_the_border_counts_less_the_nearer_it_ends():
    """Where each tile gives its own number, the result goes smoothly from one to the next."""
    numbers = iter(range(100))

    def own(Y):
        return torch.stack([torch.full_like(one, next(numbers)) for one in Y])

    y = noise(8, 64, 112)
    whitened = whiten(y, count=8)
    each = whitened.spectra.sum(1)  # what the number 1 in all images is in the cube
    band = each.abs().argmax()
    smooth = whitened.cube(torch.zeros_like(whitened.detail))
    row = (denoise_cube(Instant(own), y).cube - smooth)[band, 30] / each[band]
    torch.testing.assert_close(row[:48], torch.zeros(48), atol=1e-5, rtol=0)
    torch.testing.assert_close(row[64:], torch.ones(48), atol=1e-5, rtol=0)
    steps = row[48:64].diff()
    assert (steps > 0).all() and steps.max() < 0.15 and row[56:58].mean() > 0.5


@pytest.mark.parametrize("bands", [4, 40, 162])
def test_a_network_that_does_nothing_keeps_the_noise_of_its_images(bands):
    """Of `bands` dimensions of white noise 8 are left, or all; of a signal of rank 3, everything.

    Leading singular vectors hold a little more noise than others, the fewer the pixels the more.
    """
    mix = torch.rand(bands, 3, generator=torch.Generator().manual_seed(1))
    rows, columns = torch.meshgrid(*(torch.linspace(0, 6, n) for n in (64, 48)), indexing="ij")
    x = torch.einsum("bk,khw->bhw", mix, torch.stack([rows.sin(), columns.cos(), 0 * rows + 1]))
    y = x + 0.1 * noise(*x.shape)
    left = denoise_cube(Instant(lambda Y: Y), y).cube - x
    kept = left.square().mean() / 0.1**2 * bands
    if bands == 4:
        torch.testing.assert_close(left + x, y, atol=1e-4, rtol=0)
    else:
        assert 8 < kept < 8 * (1 + (bands / (64 * 48)) ** 0.5) ** 2 + 0.5


def test_a_network_of_zeros_gives_a_smooth_cube(scene):
    """The base alone: less noise than the 3 x 3 mean of the stand-in leaves."""
    y = scene + 0.2 * noise(*scene.shape)
    zero = denoise_cube(Instant(torch.zeros_like), y).cube
    same = denoise_cube(Instant(lambda Y: Y), y).cube

    def rough(v):
        return v.diff(dim=1).diff(dim=2).square().mean().sqrt()

    assert rough(zero) < 0.2 * rough(same)
    assert psnr(zero, scene).mean() > psnr(same, scene).mean()


def test_batches_change_nothing_but_their_size(scene):
    results = []
    for size in (1, 3, 100):
        network = Instant(torch.cos)
        results.append(denoise_cube(network, scene, tile=32, overlap=8, batch_size=size))
        sizes = [len(Y) for Y in network.batches]
        assert max(sizes) <= size and sum(sizes) == 3 * 2
    assert torch.equal(results[0].cube, results[1].cube)
    assert torch.equal(results[0].cube, results[2].cube)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (torch.zeros(3, 32, 32), {}, "3 bands: at least 4 are needed"),
        (torch.zeros(31, 15, 32), {}, "15 x 32 pixels: at least 16 x 16"),
        (torch.full((31, 32, 32), torch.inf), {}, "NaN or infinite"),
        (torch.zeros(31, 32, 32), {"tile": 60}, "tile = 60: expected a multiple of 8"),
        (torch.zeros(31, 32, 32), {"tile": 32, "overlap": 17}, "overlap = 17: expected 0 to 16"),
        (torch.zeros(31, 32, 32), {"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_tiles_refuse(y, options, message):
    with pytest.raises(ValueError, match=message):
        denoise_cube(Instant(torch.sin), y, **options)


def test_records_tell_which_tiles_did_not_converge(run, tmp_path, scene):
    y = 0.004 * noise(31, 64, 112)
    y[:, :, 64:] *= 50  # the right one of two tiles has much more noise
    y += 0.5
    np.save(tmp_path / "in.npy", y.numpy())
    words = ("--method", "stand_in", "--peak", 1)
    code, out, err = run("denoise", tmp_path / "in.npy", tmp_path / "out.npy", *words)
    assert code == 0 and "error" not in err
    assert "1 of 2 tiles (50.0 %, fewer than 95 %) reached a relative residual of 0.001" in out
    assert re.search(r"tile at row 0, column 48: 0\.00\d+ after 60\n", out)
    assert re.search(r"tile:? .*2/2 \[\d\d:\d\d<|2/2 \[\d\d:\d\d<\d\d:\d\d", err)
    network = recipes.find("stand_in").trained()
    tiles = denoise_cube(network, y).tiles
    # 0.5 x to x halves: ||f(z) - z|| = 2^-k x / 2 at evaluation k, at most 1e-3 at the ninth
    assert (tiles[0].evaluations, tiles[0].converged) == (9, True)
    assert not tiles[1].converged and tiles[1].residual > 1e-3


def test_convergence_counts_within_fifty_evaluations_only():
    """A solver that goes on for longer than 50 has not reached it in time."""

    class Late(Instant):
        def restore(self, Y):
            x, info = super().restore(Y)
            info.history = torch.full((60, len(Y)), 0.1)
            info.history[54] = 1e-4
            return x, info

    tiles = denoise_cube(Late(torch.sin), torch.rand(31, 16, 16)).tiles
    assert (tiles[0].converged, tiles[0].evaluations) == (False, 55)


def test_of_several_solutions_for_a_tile_the_worst_counts():
    class Shifts(Instant):
        def restore(self, Y):
            b = len(Y)
            x, info = super().restore(Y)
            info.history = torch.tensor([[0.1], [1e-4]]).repeat(1, 3 * b)
            info.history[:, b + 1] = torch.tensor([0.2, 0.1])  # the second of the second tile
            info.residual = info.history.amin(0)
            info.steps = torch.full((3 * b,), 2)
            return x, info

    tiles = denoise_cube(Shifts(torch.sin), torch.rand(8, 64, 112), batch_size=2).tiles
    assert [t.converged for t in tiles] == [True, False]
    assert [t.residual for t in tiles] == pytest.approx([1e-4, 0.1])
    assert [t.evaluations for t in tiles] == [2, 2]


def test_a_cube_is_whitened_as_a_whole():
    """Its left half has less noise: tiles on their own would have other levels and images."""
    y = noise(8, 64, 112)
    y[:, :, :56] *= 0.1
    network = Instant(torch.sin)
    tiles = denoise_cube(network, y).tiles
    assert [t.corner for t in tiles] == [(0, 0), (0, 48)]
    whole = whiten(y, count=8).detail
    for Y, (_, column) in zip(network.batches, (t.corner for t in tiles), strict=True):
        torch.testing.assert_close(Y[0], whole[:, :, column : column + 64])
    assert network.batches[0].std() < 0.8 * network.batches[1].std()


def test_reports_list_the_largest_residuals():
    tiles = [Tile((0, k), 1e-3 * (k + 2), 50, False) for k in range(14)]
    lines = report(tiles + 300 * [Tile((8, 0), 1e-4, 20, True)])
    assert lines[0].startswith("300 of 314 tiles (95.5 %) reached") and "after 20.0" in lines[0]
    assert "column 13: 0.015" in lines[1] and lines[-1] == "  and 4 more"
    assert len(lines) == 12


def test_memory_of_a_large_cube(tmp_path):
    """256 x 256 x 31 beside a network with 64 maps; 512 x 512 is then far from 8 GiB."""
    script = """
import resource, torch
from torch import nn
from tutorial_lib.fixed_points import fixed_point
from tutorial_lib.training.cube_tiles import denoise_cube
class Maps(nn.Module):
    bands = 16
    def __init__(self):
        super().__init__()
        self.a, self.s = nn.Conv2d(16, 64, 3, padding=1), nn.Conv2d(64, 16, 3, padding=1)
    def restore(self, Y):
        z, info = fixed_point(lambda z: 0.1 * self.a(Y) + 0.5 * z, 0 * self.a(Y), rtol=1e-3)
        return self.s(z), info
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cube, tiles = denoise_cube(Maps(), torch.rand(31, 256, 256))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(tiles), (after - before) / 2**20)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    tiles, gibibytes = map(float, run.stdout.split())
    assert tiles == 25
    assert gibibytes < 0.6


# A run that ends early -------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["out.npy", "out.mat", "out.tif"])
def test_a_failure_while_writing_keeps_the_old_file(run, tmp_path, monkeypatch, out):
    np.save(tmp_path / "in.npy", LEVELS)
    (tmp_path / out).write_bytes(b"old")

    def half(file, *args, **kwargs):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", half)
    monkeypatch.setattr(scipy.io, "savemat", half)
    monkeypatch.setattr(tifffile, "imwrite", half)
    code, _, err = run("denoise", tmp_path / "in.npy", tmp_path / out)
    assert (code, "error: No space left on device" in err) == (2, True)
    assert (tmp_path / out).read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.npy", out])


def test_an_interrupted_run_writes_nothing(run, tmp_path, monkeypatch):
    def interrupted(network, Y):
        raise KeyboardInterrupt

    np.save(tmp_path / "in.npy", LEVELS)
    monkeypatch.setattr(recipes.find("stand_in").Smooth, "restore", interrupted)
    words = (tmp_path / "in.npy", tmp_path / "out.npy", "--method", "stand_in")
    code, out, err = run("denoise", *words)
    assert (code, out, "Traceback" in err) == (130, "", False)
    assert [p.name for p in tmp_path.iterdir()] == ["in.npy"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_run_killed_while_writing_leaves_no_half_file(tmp_path):
    np.save(tmp_path / "in.npy", LEVELS)
    script = f"""
import os, sys, numpy
from tutorial_lib.__main__ import main
def half(file, *args):
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), 9)
numpy.save = half
sys.argv = ["x", "denoise", {str(tmp_path / "in.npy")!r}, {str(tmp_path / "out.npy")!r}]
main()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.npy").exists()


# Refusals --------------------------------------------------------------------------------------

BY = ["--method", "stand_in"]
REFUSED = {
    "PNG": (["good.npy", "out.png"], r"a cube cannot be written as '\.png': allowed are \.mat"),
    "PNG of a network": (["good.npy", "out.png", *BY], "cannot be written as '.png'"),
    "no suffix": (["good.npy", "out", *BY], "cannot be written as ''"),
    "folder": (["good.npy", "nowhere/out.npy", *BY], "does not exist or cannot be written"),
    "OUT is IN": (["good.npy", "./good.npy", *BY], "OUT is IN"),
    "missing": (["nowhere.npy", "out.npy", *BY], r"nowhere\.npy: no such file"),
    "damaged": (["damaged.npy", "out.npy", *BY], r"damaged\.npy: cannot be read"),
    "axes": (["turned.npy", "out.npy"], r"\(40, 36, 31\).* --bands-axis 2"),
    "axes of a network": (["turned.npy", "out.npy", *BY], "--bands-axis 2"),
    "axis": (["good.npy", "out.npy", "--bands-axis", "3"], "'--bands-axis'"),
    "NaN": (["nan.npy", "out.npy", *BY], r"in 2 of 31 bands: number 3, 17, where the first is 0"),
    "few bands": (["few.npy", "out.npy", *BY], r"few\.npy: 3 bands: at least 4 are needed"),
    "few for low rank": (["few.npy", "out.npy", "--method", "lowrank"], "4 bands of 16 x 16 or"),
    "colour": (["colour.png", "out.npy", *BY], r"colour\.png: 3 bands: at least 4"),
    "gray": (["gray.png", "out.npy", *BY], r"gray\.png: uint8 of shape \(20, 20\)"),
    "small": (["small.npy", "out.npy", *BY], r"small\.npy: 12 x 36 pixels: at least 16 x 16"),
    "matrix": (["matrix.npy", "out.npy", *BY], r"\(31, 400\): expected numbers \(bands, h, w\)"),
    "zero": (["zero.npy", "out.npy"], "hardly a value is above 0: say with --peak"),
    "fill": (["fill.npy", "out.npy"], "-9999 at band 2, row 1, column 0, while its white is"),
    "peak": (["good.npy", "out.npy", "--peak", "0"], "--peak 0: expected a positive"),
    "peak NaN": (["good.npy", "out.npy", "--peak", "nan"], "--peak nan"),
    "sigma": (["good.npy", "out.npy", *BY, "--sigma", "9"], "--sigma 9: stand_in finds the noise"),
    "key": (["two.mat", "out.npy", *BY], r"variables \['a', 'b'\]; denoise has --key"),
    "wrong key": (["two.mat", "out.npy", *BY, "--key", "c"], r"variables \['a', 'b'\]"),
    "empty folder": (["empty", "out.npy", *BY], "empty: holds 0 images"),
    "photograph": (["colour.png", "out.npy"], "cannot write 8 bits as '.npy'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_exit_2_and_write_nothing(run, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", LEVELS)
    np.save("turned.npy", LEVELS.transpose(1, 2, 0))
    nan = LEVELS.astype(np.float32)
    nan[3, 1, 1], nan[17, 2, 2] = np.nan, np.inf
    np.save("nan.npy", nan)
    np.save("few.npy", LEVELS[:3])
    np.save("small.npy", LEVELS[:, :12])
    np.save("matrix.npy", LEVELS[:, :20, :20].reshape(31, 400))
    np.save("zero.npy", np.zeros_like(LEVELS))
    fill = LEVELS.astype(np.int16)
    fill[2, 1, 0] = -9999
    fill[:] = np.where(fill > 0, fill // 4, fill)
    np.save("fill.npy", fill)
    scipy.io.savemat("two.mat", {"a": LEVELS, "b": LEVELS})
    write_image("colour.png", torch.rand(3, 20, 20))
    write_image("gray.png", torch.rand(20, 20))
    Path("damaged.npy").write_bytes(Path("good.npy").read_bytes()[:500])
    Path("empty").mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words, message = REFUSED[case]
    code, out, err = run("denoise", *words)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*({message}).*\n", err), err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# Scores ----------------------------------------------------------------------------------------


@pytest.fixture
def cave_like(tmp_path, scene):
    """Two scenes: as CAVE's, in a folder within a folder of its name; and a MATLAB file."""
    root = tmp_path / "CAVE/complete_ms_data"
    bands = root / "toys_ms/toys_ms"
    bands.mkdir(parents=True)
    for k, band in enumerate(0.8 * scene):
        write_image(bands / f"toys_ms_{k + 1:02}.png", band, bits=16)
    Image.new("RGB", (8, 8)).save(bands / "toys_RGB.bmp")
    other = scene.flip(0)[:, :48].permute(1, 2, 0)
    scipy.io.savemat(root / "other.mat", {"ref": 4095 * other.numpy()})
    return root.parent


def test_evaluate_a_network_on_cubes(run, cave_like, scene):
    words = ("evaluate", "stand_in", "--data", cave_like, "--noise", "noniid", "--sigma", 55)
    code, out, err = run(*words, "--json")
    assert (code, out.count("\n")) == (0, 1)
    assert re.search(r"toys: +100%.* 2/2 \[\d\d:\d\d<\d\d:\d\d", err)
    told = json.loads(out)
    assert list(told)[:4] == ["name", "metric", "images", "seconds"]
    assert (told["noise"], told["sigma"], told["seed"]) == ("noniid", 55, 0)
    assert list(told["images"]) == ["other.mat", "toys"]
    x = read_cube(cave_like / "complete_ms_data/toys_ms/toys_ms")
    x = x / x.max()  # 0.8 of the type's range becomes 1
    y = add_cube_noise(x, "noniid", sigma=55 / 255, seed=0).cube
    z = denoise_cube(recipes.find("stand_in").trained(), y).cube
    expected = {}
    for name, result in (("", z), ("_noisy", y)):
        expected["psnr" + name] = psnr(result, x).mean().item()
        expected["ssim" + name] = ssim(result, x).mean().item()
        expected["sam" + name] = sam(result, x).item()
    assert told["images"]["toys"] == pytest.approx(expected, rel=1e-5)
    assert list(told["metric"]) == ["psnr", "ssim", "sam", "psnr_noisy", "ssim_noisy", "sam_noisy"]
    for key, value in told["metric"].items():
        assert value == pytest.approx(sum(s[key] for s in told["images"].values()) / 2)
    equilibrium = told["equilibrium"]["toys"]
    assert (equilibrium["tiles"], equilibrium["converged"], equilibrium["others"]) == (2, 2, [])
    assert equilibrium["residual"] <= 1e-3 and equilibrium["evaluations"] <= 50


def test_evaluate_prints_a_line_for_each_scene_and_the_mean(run, cave_like):
    code, out, _ = run("evaluate", "stand_in", "--data", cave_like, "--noise", "mixture")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[:4]] == ["psnr", "other.mat", "toys", "mean"]
    assert lines[4].startswith("other.mat: 1 of 1 tiles (100.0 %) reached a relative residual")
    assert lines[5].startswith("toys: 2 of 2 tiles") and len(lines) == 6


def test_the_seed_and_the_noise_have_an_effect(run, cave_like):
    data = cave_like / "complete_ms_data/toys_ms"

    def noisy(*words):
        told = json.loads(run("evaluate", "stand_in", "--data", data, "--json", *words)[1])
        return told["metric"]["psnr_noisy"]

    plain = noisy("--noise", "noniid")  # 95 by default
    assert noisy("--noise", "noniid", "--sigma", "95", "--seed", "0") == plain
    assert noisy("--noise", "noniid", "--seed", "1") != plain
    assert noisy("--noise", "mixture") < plain - 1
    assert noisy("--noise", "corr") == noisy("--noise", "correlated") > plain


def test_methods_without_a_network_are_scored_too(run, cave_like):
    data = cave_like / "complete_ms_data/toys_ms"
    words = ("--noise", "iid", "--sigma", 30, "--json")
    told = json.loads(run("evaluate", "wavelet", "--data", data, *words)[1])
    assert "equilibrium" not in told and list(told["images"]) == ["toys"]
    assert told["metric"]["psnr"] > told["metric"]["psnr_noisy"] + 4
    assert told["metric"]["sam"] < told["metric"]["sam_noisy"]


def test_evaluate_one_folder_of_bands_and_tiff_files(run, cave_like, tmp_path, scene):
    one = cave_like / "complete_ms_data/toys_ms/toys_ms"
    words = ("--noise", "iid", "--sigma", "10", "--json")
    told = json.loads(run("evaluate", "stand_in", "--data", one, *words)[1])
    assert list(told["images"]) == ["toys"]
    (tmp_path / "tiffs").mkdir()
    for name in ("a", "b"):
        write_cube(tmp_path / f"tiffs/{name}.tif", scene, dtype="float32")
    told = json.loads(run("evaluate", "stand_in", "--data", tmp_path / "tiffs", *words)[1])
    assert list(told["images"]) == ["a.tif", "b.tif"]


IN = ["--data", "good"]
NOT_EVALUATED = {
    "noise": (["stand_in", *IN, "--noise", "gauss"], "--noise gauss: allowed are iid, noniid"),
    "no noise": (["stand_in", *IN], "stand_in is for cubes: say with --noise"),
    "corr": (["stand_in", *IN, "--noise", "corr", "--sigma", "5"], "--sigma 5: the noise corr"),
    "sigma": (["stand_in", *IN, "--noise", "iid", "--sigma", "-1"], "--sigma -1: expected 0 to"),
    "scale": (["stand_in", *IN, "--noise", "iid", "--scale", "4"], "--scale 4"),
    "seed": (["winnet", *IN, "--seed", "3"], "--seed 3: is for --noise"),
    "negative seed": (["stand_in", *IN, "--noise", "iid", "--seed", "-1"], "'--seed'"),
    "guided": (["cunet_depth", *IN, "--noise", "iid"], "cunet_depth is no denoiser"),
    "unknown": (["resnet", *IN, "--noise", "iid"], "unknown network 'resnet'"),
    "no folder": (["stand_in", "--data", "nowhere", "--noise", "iid"], "nowhere: no such folder"),
    "empty": (["stand_in", "--data", "empty", "--noise", "iid"], "empty: holds no cube"),
    "photographs": (["stand_in", "--data", "photo", "--noise", "iid"], "photo: holds no cube"),
    "damaged": (["stand_in", "--data", "bad", "--noise", "iid"], r"x\.tif: cannot be read"),
    "small": (["stand_in", "--data", "small", "--noise", "iid"], r"\(31, 12, 20\): at least 16"),
    "few bands": (["stand_in", "--data", "few", "--noise", "iid"], r"x\.npy: 3 bands: at least"),
    "axes": (["stand_in", "--data", "turned", "--noise", "iid"], r"x\.npy: .*--bands-axis 2"),
    "dark": (["stand_in", "--data", "dark", "--noise", "iid"], "no value is above 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_EVALUATED)
def test_evaluate_refuses_in_one_line(run, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    cubes = {
        "good": LEVELS, "small": LEVELS[:, :12, :20], "few": LEVELS[:3],
        "turned": LEVELS.transpose(1, 2, 0), "dark": 0.0 * LEVELS,
    }  # fmt: skip
    for name, cube in cubes.items():
        Path(name).mkdir()
        np.save(f"{name}/x.npy", cube)
    for name in ("empty", "photo", "bad"):
        Path(name).mkdir()
    write_image("photo/a.png", torch.rand(20, 20))
    Path("bad/x.tif").write_bytes(b"II*\0\xff\xff\0\0" + bytes(64))
    words, message = NOT_EVALUATED[case]
    code, out, err = run("evaluate", *words)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*({message}).*\n", err.splitlines(True)[-1]), err
