"""python -m tutorial_lib: what it prints, writes and refuses."""

import json
import math
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import __main__ as command_line
from tutorial_lib.data import add_noise, luma, photograph, read_image, write_image
from tutorial_lib.data.files import read_array
from tutorial_lib.metrics import psnr, ssim
from tutorial_lib.networks.cunet import CUNet
from tutorial_lib.networks.winnet import NENet, WINNet
from tutorial_lib.super_resolution import downscale, upscale
from tutorial_lib.thresholding import denoise_wavelet
from tutorial_lib.training import load_weights, recipes, save_weights, weights
from tutorial_lib.training.photographs import denoise_photograph
from tutorial_lib.training.recipes import cunet, nenet, winnet


@pytest.fixture
def toy(monkeypatch, tmp_path_factory):
    """The recipe tests/recipes/toy.py beside those of the package, and no weights."""
    path = [*recipes.__path__, str(Path(__file__).with_name("recipes"))]
    monkeypatch.setattr(recipes, "__path__", path)
    folder = tmp_path_factory.mktemp("weights")
    monkeypatch.setattr(weights, "WEIGHTS", folder)
    for trained in (winnet.trained, nenet.trained):
        trained.cache_clear()
    yield folder
    for trained in (winnet.trained, nenet.trained):
        trained.cache_clear()


def test_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "tutorial_lib", "list"], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert "wavelet" in run.stdout
    assert run.stderr == ""


def test_list_names_every_notebook_with_its_title(run, tmp_path, monkeypatch):
    monkeypatch.setattr(command_line.tutorial_lib, "__file__", str(tmp_path / "lib/__init__.py"))
    assert "https://sparsity-meets-deep-networks.github.io/book/" in run("list")[1]
    (tmp_path / "notebooks").mkdir()
    for name, title in [("02_two", "Second: a title"), ("01_one", "First")]:
        cell = {"cell_type": "markdown", "source": ["[badges](x)\n", f"# {title}\n", "text"]}
        (tmp_path / f"notebooks/{name}.ipynb").write_text(json.dumps({"cells": [cell]}))
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert re.search(
        r"notebooks/01_one\.ipynb +First\n +notebooks/02_two\.ipynb +Second: a title\n", out
    )
    assert re.search(r"wavelet +undecimated sym4", out)


def test_help_states_the_unit_of_sigma(run):
    code, out, _ = run("denoise", "--help")
    assert code == 0
    assert "units of 1/255" in out


@pytest.mark.parametrize("gray", [True, False], ids=["gray", "colour"])
def test_denoise_removes_noise_and_tells_its_level(run, tmp_path, gray):
    clean = photograph("astronaut", size=128, gray=gray)
    write_image(tmp_path / "in.png", add_noise(clean, 25 / 255))
    code, out, err = run("denoise", tmp_path / "in.png", tmp_path / "out.png")
    assert (code, err, out.count("\n")) == (0, "", 1)
    sigma = float(re.search(r"sigma ([\d.]+)/255 \(estimated\), [\d.]+ s", out).group(1))
    assert sigma == pytest.approx(25, rel=0.15)
    noisy, cleaned = read_image(tmp_path / "in.png"), read_image(tmp_path / "out.png")
    assert cleaned.shape == clean.shape
    ndim = clean.ndim
    assert psnr(cleaned, clean, ndim=ndim) > psnr(noisy, clean, ndim=ndim) + 4


def test_given_sigma_is_used_and_zero_changes_nothing(run, tmp_path):
    x = photograph("coins", size=40)
    write_image(tmp_path / "in.png", x)
    _, out, _ = run("denoise", tmp_path / "in.png", tmp_path / "0.tif", "--sigma", "0")
    assert "sigma 0.00/255 (given)" in out
    assert np.array_equal(read_array(tmp_path / "0.tif"), read_array(tmp_path / "in.png"))
    code, out, _ = run("denoise", tmp_path / "in.png", tmp_path / "40.png", "--sigma", "40")
    assert (code, "sigma 40.00/255 (given)" in out) == (0, True)
    mirrored = torch.from_numpy(np.pad(read_image(tmp_path / "in.png").numpy(), 32, "symmetric"))
    expected = denoise_wavelet(mirrored, sigma=40 / 255, wavelet="sym4", transform="undecimated")
    expected = expected[32:-32, 32:-32]
    difference = read_image(tmp_path / "40.png") - expected.clamp(0, 1)
    assert difference.abs().max() <= 0.501 / 255


def test_rotated_colours_beat_red_green_blue_one_by_one():
    clean = photograph("coffee", size=128, gray=False)
    noisy = add_noise(clean, 25 / 255)
    rotated, used = denoise_photograph(noisy, sigma=25 / 255)
    one_by_one = denoise_wavelet(
        noisy, sigma=torch.full((3,), 25 / 255), wavelet="sym4", transform="undecimated"
    )
    assert psnr(rotated, clean, ndim=3) > psnr(one_by_one, clean, ndim=3) + 1
    assert used == pytest.approx(25 / 255)


def test_the_colour_rotation_is_orthonormal():
    """Without noise to remove the picture comes back, and a gray one stays gray."""
    x = photograph("chelsea", size=32, gray=False)
    torch.testing.assert_close(denoise_photograph(x, sigma=0.0)[0], x)
    gray = add_noise(photograph("moon", size=32), 0.1)
    cleaned, _ = denoise_photograph(gray.expand(3, 32, 32), sigma=0.1)
    torch.testing.assert_close(cleaned[0], cleaned[1])
    torch.testing.assert_close(cleaned[0], cleaned[2])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (50, 1), (1, 37), (3, 1, 9), (3, 2, 3), (3, 31, 45)])
def test_any_size_and_depth(run, tmp_path, shape, bits):
    write_image(tmp_path / "in.png", add_noise(torch.full(shape, 0.5), 0.1), bits=bits)
    code, out, _ = run("denoise", tmp_path / "in.png", tmp_path / "out.png")
    assert code == 0
    assert f"{shape[-1]} x {shape[-2]} {'colour' if len(shape) == 3 else 'gray'}" in out
    array = read_array(tmp_path / "out.png")
    assert (array.shape, array.dtype.itemsize * 8) == (shape, bits)


def test_depth_of_other_files(run, tmp_path):
    np.save(tmp_path / "x.npy", np.full((9, 8), 0.3))
    assert run("denoise", tmp_path / "x.npy", tmp_path / "x.png")[0] == 0
    assert read_array(tmp_path / "x.png").dtype == np.uint16
    assert run("denoise", tmp_path / "x.png", tmp_path / "x.jpg")[0] == 0
    assert read_array(tmp_path / "x.jpg").dtype == np.uint8


GOOD = ["denoise", "good.png", "out.png"]
GUIDED = ["guided-sr"]
REFUSED = {
    "missing file": (["denoise", "nowhere.png", "out.png"], r"nowhere\.png: no such file"),
    "empty file": (["denoise", "empty.png", "out.png"], "the file is empty"),
    "corrupt file": (["denoise", "corrupt.png", "out.png"], r"corrupt\.png: cannot be read"),
    "corrupt TIFF": (["denoise", "corrupt.tif", "out.png"], r"corrupt\.tif: cannot be read"),
    "NaN": (["denoise", "nan.npy", "out.png"], "NaN"),
    "integers": (["denoise", "int.npy", "out.png"], "int32 is not one of"),
    "no pixel": (["denoise", "none.npy", "out.png"], r"got \(0, 4\)"),
    "rank 1": (["denoise", "rank1.npy", "out.png"], r"got \(4,\)"),
    "a cube": (["denoise", "cube.npy", "out.png"], r"out.png: a cube cannot be written as '.png'"),
    "method": ([*GOOD, "--method", "magic"], "unknown method 'magic': allowed are wavelet, winnet"),
    "negative sigma": ([*GOOD, "--sigma", "-3"], "--sigma -3: expected auto, or a number"),
    "NaN sigma": ([*GOOD, "--sigma", "nan"], "--sigma nan"),
    "sigma in words": ([*GOOD, "--sigma", "much"], "--sigma much"),
    "suffix": (["denoise", "good.png", "out.gif"], "cannot write 8 bits as '.gif'"),
    "folder": (["denoise", "good.png", "nowhere/out.png"], "does not exist or cannot be written"),
    "OUT is a folder": (["denoise", "good.png", "folder.png"], "cannot be written"),
    "OUT is IN": (["denoise", "good.png", "./good.png"], "OUT is IN"),
    "no OUT": (["denoise", "good.png"], "Missing argument"),
    "option": ([*GOOD, "--strength", "3"], "No such option"),
    "no weights": ([*GOOD, "--method", "winnet", "--sigma", "25"], "no weights 'winnet' in"),
    "network to train": (["train", "resnet"], "unknown network 'resnet': known are"),
    "a family": (["train", "flow2d"], "unknown network .flow2d.: known are toy, .*flow2d_eight"),
    "a path to train": (["train", "../toy"], "unknown network"),
    "profile": (["train", "toy", "--profile", "huge"], "unknown profile 'huge': allowed are smoke"),
    "steps": (["train", "toy", "--steps", "0"], "steps 0"),
    "steps in words": (["train", "toy", "--steps", "many"], "Invalid value for '--steps'"),
    "out is a file": (["train", "toy", "--out", "good.png"], "good.png cannot hold checkpoints"),
    "network to evaluate": (["evaluate", "resnet", "--data", "."], "unknown network 'resnet'"),
    "no pictures": (["evaluate", "nenet", "--data", "."], "nenet makes no pictures"),
    "scale of a denoiser": (
        ["evaluate", "toy", "--data", ".", "--scale", "4"],
        "--scale 4: toy is a denoiser",
    ),
    "sigma of a guided network": (
        ["evaluate", "cunet_depth", "--data", ".", "--sigma", "25"],
        "--sigma 25: cunet_depth is no denoiser",
    ),
    "another scale": (
        ["evaluate", "cunet_depth", "--data", ".", "--scale", "8"],
        "--scale 8: cunet_depth was trained for 4",
    ),
    "no pairs": (["evaluate", "cunet_depth", "--data", "cubes"], "cubes: holds no pairs"),
    "a guide of another size": (
        [*GUIDED, "good.png", "wide.png", "out.png"],
        r"wide.png: the guide \(8, 40\) must have 4 times the size of the target \(8, 8\)",
    ),
    "a guide that is turned": (
        [*GUIDED, "flat.png", "wide.png", "out.png"],
        r"the guide \(8, 40\) must have 4 times the size of the target \(10, 2\)",
    ),
    "no guide": ([*GUIDED, "good.png", "nowhere.png", "out.png"], "nowhere.png: no such file"),
    "a cube as guide": ([*GUIDED, "good.png", "cube.npy", "out.png"], r"got \(31, 8, 8\)"),
    "OUT is the guide": ([*GUIDED, "flat.png", "wide.png", "wide.png"], "OUT is one of the inputs"),
    "a method without guide": (
        [*GUIDED, "good.png", "wide.png", "out.png", "--method", "toy"],
        "toy takes no guide: allowed are .*cunet_depth",
    ),
    "no --data": (["evaluate", "toy"], "Missing option '--data'"),
    "no such folder": (["evaluate", "toy", "--data", "nowhere"], "nowhere: no such folder"),
    "a file as folder": (["evaluate", "toy", "--data", "good.png"], "good.png: no such folder"),
    "empty folder": (["evaluate", "toy", "--data", "folder.png"], "folder.png: holds no picture"),
    "sigma below 0": (
        ["evaluate", "toy", "--data", ".", "--sigma", "-1"],
        "--sigma -1: expected 0",
    ),
    "sigma above": (
        ["evaluate", "toy", "--data", ".", "--sigma", "256"],
        "--sigma 256: expected 0",
    ),
    "sigma nan": (["evaluate", "toy", "--data", ".", "--sigma", "nan"], "--sigma nan: expected 0"),
    "a cube in DIR": (["evaluate", "toy", "--data", "cubes"], r"cube.npy: .* got \(31, 16, 16\)"),
    "damaged in DIR": (["evaluate", "toy", "--data", "."], r"corrupt\.png: cannot be read"),
    "small in DIR": (["evaluate", "toy", "--data", "small"], "at least 11 x 11 pixels"),
    "command": (["sharpen"], "No such command"),
    "nothing": ([], "Missing command"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_exit_2_and_write_nothing(run, toy, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cubes").mkdir()
    (tmp_path / "small").mkdir()
    np.save("cubes/cube.npy", np.zeros((31, 16, 16)))
    np.save("small/a.npy", np.zeros((10, 30)))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("good.png")
    Image.fromarray(np.zeros((8, 40), np.uint8)).save("wide.png")
    Image.fromarray(np.zeros((10, 2), np.uint8)).save("flat.png")
    png = (tmp_path / "good.png").read_bytes()
    (tmp_path / "corrupt.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "corrupt.tif").write_bytes(b"II*\0\xff\xff\0\0" + bytes(64))
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    np.save("nan.npy", np.full((4, 4), np.nan))
    np.save("int.npy", np.zeros((4, 4), np.int32))
    np.save("none.npy", np.zeros((0, 4)))
    np.save("rank1.npy", np.zeros(4))
    np.save("cube.npy", np.zeros((31, 8, 8)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words, message = REFUSED[case]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*{message}.*\n", err), err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser writes anywhere")
def test_unwritable_folder_is_refused_before_any_work(run, tmp_path):
    write_image(tmp_path / "in.png", torch.zeros(4, 4))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, err = run("denoise", tmp_path / "in.png", locked / "out.png")
    assert (code, "cannot be written" in err) == (2, True)


# Training and evaluation ----------------------------------------------------------------------


def test_train_writes_weights_and_a_record_and_resumes(run, toy, tmp_path):
    words = ["train", "toy", "--profile", "smoke", "--out", tmp_path]
    code, out, _ = run(*words)
    assert (code, out.count("\n")) == (0, 1)
    assert re.match(rf"{tmp_path}/toy\.safetensors: trained here: 40 steps in .* minus_mse -", out)
    state, record = load_weights("toy", folder=tmp_path)
    assert state["weight"].shape == (1, 1, 3, 3)
    assert record["config"] == {"profile": "smoke", "width": 3}
    assert record["data"] == "random numbers"
    assert run(*words)[:2] == (0, out)  # nothing is left to do
    code, _, err = run(*words, "--steps", 41)
    assert (code, "is of another run (steps is 40 there, 41 here)" in err) == (2, True)
    assert run(*words, "--steps", 41, "--no-resume")[0] == 0
    assert load_weights("toy", folder=tmp_path)[1]["steps"] == 41


@pytest.mark.parametrize("profile", ["smoke", "cpu"])
def test_train_takes_the_profile_in_force_and_a_folder_of_its_own(
    run, toy, tmp_path, monkeypatch, profile
):
    monkeypatch.setenv("TUTORIAL_PROFILE", profile)
    monkeypatch.chdir(tmp_path)
    assert run("train", "toy")[0] == 0
    record = json.loads((tmp_path / f"runs/toy-{profile}/toy.json").read_text())
    assert record["steps"] == {"smoke": 40, "cpu": 80}[profile]


def test_a_run_that_diverges_is_one_line(run, toy, tmp_path, monkeypatch):
    module = recipes.find("toy")
    monkeypatch.setattr(module, "loss", lambda network, x, step: network(x).mean() * float("nan"))
    code, out, err = run("train", "toy", "--profile", "smoke", "--out", tmp_path)
    assert (code, out) == (2, "")
    assert re.search(r"^error: toy: the loss is not finite at step 1, .*\n\Z", err, re.M)


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "b.png", photograph("astronaut", size=64, gray=False))
    np.save(tmp_path / "a.npy", photograph("coins", size=48).numpy())
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_evaluate_json(run, toy, folder):
    code, out, err = run("evaluate", "toy", "--data", folder, "--sigma", 15, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    told = json.loads(out)
    assert list(told) == ["name", "metric", "images", "seconds"]
    assert (told["name"], list(told["images"])) == ("toy", ["a.npy", "b.png"])
    assert told["seconds"] > 0
    colour = read_image(folder / "b.png")
    x = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    noise = np.random.default_rng(zlib.crc32(b"b.png")).standard_normal((64, 64))
    y = x + 15 / 255 * torch.from_numpy(noise).float()
    z, _ = recipes.find("toy").denoise(y)
    expected = {"psnr": psnr(z, x), "ssim": ssim(z, x), "psnr_noisy": psnr(y, x)}
    expected = {k: v.item() for k, v in expected.items()}
    assert told["images"]["b.png"] == pytest.approx(expected, abs=1e-4)
    assert list(told["metric"]) == ["psnr", "ssim", "psnr_noisy"]
    for key, value in told["metric"].items():
        scores = [told["images"][file][key] for file in ("a.npy", "b.png")]
        assert value == pytest.approx(sum(scores) / 2)


def test_evaluate_prints_a_table_and_adds_25_by_default(run, toy, folder):
    code, out, _ = run("evaluate", "toy", "--data", folder)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert [line[0] for line in lines] == ["psnr", "a.npy", "b.png", "mean"]
    told = json.loads(run("evaluate", "toy", "--data", folder, "--sigma", 25, "--json")[1])
    assert [float(v) for v in lines[-1][1:]] == pytest.approx([*told["metric"].values()], abs=1e-4)


@pytest.fixture
def guided(toy, monkeypatch):
    """The recipe cunet_depth with weights as they are at the start of training."""
    torch.manual_seed(0)
    network = CUNet()
    save_weights("cunet_depth", network, {})
    cunet.trained.cache_clear()
    yield network
    cunet.trained.cache_clear()


def test_evaluate_pairs_in_both_layouts(run, guided, tmp_path):
    guide, target = photograph("astronaut", size=42, gray=False), photograph("astronaut", size=42)
    for folder, names in (("a", ("x_guide", "x_disparity")), ("b", ("rgb/x", "nir/x"))):
        for name, x in zip(names, (guide, target), strict=True):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, x)
    code, out, err = run("evaluate", "cunet_depth", "--data", tmp_path / "a", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert list(told["metric"]) == ["rmse", "rmse_bicubic", "psnr"]
    z = read_image(tmp_path / "a/x_disparity.png")[:40, :40]
    y = luma(read_image(tmp_path / "a/x_guide.png"))[:40, :40]
    x = upscale(downscale(z, scale=4), scale=4)
    with torch.no_grad():
        mse = (cunet.restore(guided, x, y) - z).square().mean().item()
    bicubic = (x - z).square().mean().item()
    expected = [255 * mse**0.5, 255 * bicubic**0.5, -10 * math.log10(mse)]
    assert list(told["images"]["x"].values()) == pytest.approx(expected, rel=1e-4)
    words = ["evaluate", "cunet_depth", "--data", tmp_path / "b", "--scale", "4", "--json"]
    assert json.loads(run(*words)[1])["images"] == told["images"]


def test_guided_super_resolution_of_files(run, guided, tmp_path):
    guide = photograph("astronaut", size=48, gray=False)
    small = photograph("astronaut", size=12)
    write_image(tmp_path / "guide.png", guide)
    write_image(tmp_path / "small.png", small)
    words = [tmp_path / f"{name}.png" for name in ("small", "guide", "out")]
    code, out, err = run("guided-sr", *words)
    assert (code, err) == (0, "")
    assert re.match(r".*out\.png: 12 x 12 to 48 x 48, cunet_depth, \d", out)
    x = upscale(read_image(tmp_path / "small.png"), scale=4)
    with torch.no_grad():
        expected = cunet.restore(guided, x, luma(read_image(tmp_path / "guide.png")))
    written = read_image(tmp_path / "out.png")
    torch.testing.assert_close(written, expected.clamp(0, 1), atol=0.003, rtol=0)


def test_guided_super_resolution_uses_the_range_of_16_bits(run, guided, tmp_path):
    """A depth map in 16 bits: the same picture at a tenth of the scale gives a tenth."""
    write_image(tmp_path / "guide.png", photograph("astronaut", size=48))
    small = photograph("astronaut", size=12)
    for name, gain in (("full", 1.0), ("low", 0.1)):
        write_image(tmp_path / f"{name}.png", gain * small, bits=16)
        words = (tmp_path / f"{name}.png", tmp_path / "guide.png", tmp_path / f"{name}_out.png")
        assert run("guided-sr", *words)[0] == 0
    full, low = (read_array(tmp_path / f"{name}_out.png") for name in ("full", "low"))
    assert low.dtype == np.uint16
    inside = (full > 0) & (full < 65535)
    assert np.abs(full[inside] / 10.0 - low[inside]).max() < 12


def test_list_names_networks_and_weights_with_scores(run, toy):
    out = run("list")[1]
    assert re.search(r"networks.*\n(.*\n)* +toy +A small network that learns to smooth", out)
    record = {
        "steps": 7, "seconds": 300, "hardware": "an abacus", "scores": {"psnr": 30.25},
        "versions": {"commit": "0123456789"},
    }  # fmt: skip
    save_weights("toy", torch.nn.Linear(1, 1), record)
    line = "toy +7 steps in 5 min on an abacus, psnr 30.25, commit 01234567\n"
    assert re.search(rf"weights\n +{line}", run("list")[1])


def test_winnet_denoises_gray_colour_and_by_tiles(run, toy, tmp_path):
    """With weights as they are at the start of training: the command, not the quality."""
    torch.manual_seed(0)
    network = WINNet()
    save_weights("winnet", network, {})
    save_weights("nenet", NENet(), {})
    for gray in (True, False):
        x = add_noise(photograph("astronaut", size=32, gray=gray), 0.1)
        write_image(tmp_path / "in.png", x)
        code, out, _ = run(
            "denoise", tmp_path / "in.png", tmp_path / "out.png", "--method", "winnet"
        )
        assert code == 0
        assert re.search(r"winnet, sigma [\d.]+/255 \(estimated\)", out)
        assert read_image(tmp_path / "out.png").shape == x.shape
    y = photograph(size=32)
    expected = network(y, 0.1).detach()
    torch.testing.assert_close(winnet.denoise(y, 0.1)[0].detach(), expected)
