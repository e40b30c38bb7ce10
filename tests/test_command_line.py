"""python -m tutorial_lib: what it prints, writes and refuses."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import __main__ as command_line
from tutorial_lib.data import add_noise, photograph, read_image, write_image
from tutorial_lib.data.files import read_array
from tutorial_lib.metrics import psnr
from tutorial_lib.thresholding import denoise_wavelet


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tutorial_lib", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return run


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
    expected = denoise_wavelet(
        read_image(tmp_path / "in.png"), sigma=40 / 255, wavelet="sym4", transform="undecimated"
    )
    difference = read_image(tmp_path / "40.png") - expected.clamp(0, 1)
    assert difference.abs().max() <= 0.501 / 255


def test_rotated_colours_beat_red_green_blue_one_by_one():
    clean = photograph("coffee", size=128, gray=False)
    noisy = add_noise(clean, 25 / 255)
    rotated, used = command_line.denoise_photograph(noisy, sigma=25 / 255)
    one_by_one = denoise_wavelet(
        noisy, sigma=torch.full((3,), 25 / 255), wavelet="sym4", transform="undecimated"
    )
    assert psnr(rotated, clean, ndim=3) > psnr(one_by_one, clean, ndim=3) + 1
    assert used == pytest.approx(25 / 255)


def test_the_colour_rotation_is_orthonormal():
    """Without noise to remove the picture comes back, and a gray one stays gray."""
    x = photograph("chelsea", size=32, gray=False)
    torch.testing.assert_close(command_line.denoise_photograph(x, sigma=0.0)[0], x)
    gray = add_noise(photograph("moon", size=32), 0.1)
    cleaned, _ = command_line.denoise_photograph(gray.expand(3, 32, 32), sigma=0.1)
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
REFUSED = {
    "missing file": (["denoise", "nowhere.png", "out.png"], r"nowhere\.png: no such file"),
    "empty file": (["denoise", "empty.png", "out.png"], "the file is empty"),
    "corrupt file": (["denoise", "corrupt.png", "out.png"], r"corrupt\.png: cannot be read"),
    "corrupt TIFF": (["denoise", "corrupt.tif", "out.png"], r"corrupt\.tif: cannot be read"),
    "NaN": (["denoise", "nan.npy", "out.png"], "NaN"),
    "integers": (["denoise", "int.npy", "out.png"], "int32 is not one of"),
    "no pixel": (["denoise", "none.npy", "out.png"], r"got \(0, 4\)"),
    "rank 1": (["denoise", "rank1.npy", "out.png"], r"got \(4,\)"),
    "a cube": (["denoise", "cube.npy", "out.png"], r"gray .* or colour .* got \(31, 8, 8\)"),
    "method": ([*GOOD, "--method", "magic"], "unknown method 'magic': allowed are wavelet"),
    "negative sigma": ([*GOOD, "--sigma", "-3"], "--sigma -3: expected auto, or a number"),
    "NaN sigma": ([*GOOD, "--sigma", "nan"], "--sigma nan"),
    "sigma in words": ([*GOOD, "--sigma", "much"], "--sigma much"),
    "suffix": (["denoise", "good.png", "out.gif"], "cannot write 8 bits as '.gif'"),
    "folder": (["denoise", "good.png", "nowhere/out.png"], "does not exist or cannot be written"),
    "OUT is a folder": (["denoise", "good.png", "folder.png"], "cannot be written"),
    "OUT is IN": (["denoise", "good.png", "./good.png"], "OUT is IN"),
    "no OUT": (["denoise", "good.png"], "Missing argument"),
    "option": ([*GOOD, "--strength", "3"], "No such option"),
    "command": (["sharpen"], "No such command"),
    "nothing": ([], "Missing command"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_exit_2_and_write_nothing(run, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("good.png")
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
