"""Data: photographs, public sets with their verification and download, own files, noise, blur."""

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from inspect import unwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from PIL import Image

from tutorial_lib import data
from tutorial_lib.data import degrade, download, files

# Photographs ----------------------------------------------------------------------------------


def test_twelve_photographs_camera_first():
    batch = data.photographs(size=64)
    assert batch.shape == (12, 64, 64)
    assert batch.dtype == torch.float32
    assert 0 <= batch.min() < 0.1 < 0.9 < batch.max() <= 1
    assert next(iter(data.PHOTOGRAPHS)) == "camera"
    torch.testing.assert_close(batch[0], data.photograph(size=64))


def test_photographs_need_no_download():
    """In a fresh process with an empty cache and no way out."""
    code = (
        "import socket; socket.socket.connect = None\n"
        "from tutorial_lib.data import photographs; print(photographs(size=8).shape)"
    )
    env = {**os.environ, "XDG_CACHE_HOME": "/nonexistent", "HTTPS_PROXY": "http://127.0.0.1:9"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "torch.Size([12, 8, 8])" in run.stdout, run.stderr


def test_photograph_is_the_centre_square_resized():
    native = data.photograph("coffee", size=None, gray=False)
    assert native.shape == (3, 400, 600)
    square = native[:, :, 100:500]
    assert torch.equal(data.photograph("coffee", size=400, gray=False), square)
    small = data.photograph("coffee", size=100, gray=False)
    # Anti-aliased: near the mean of each 4 x 4 block, which plain subsampling is not.
    blocks = torch.nn.functional.avg_pool2d(square, 4)
    assert (small - blocks).square().mean() < 0.3 * (square[:, ::4, ::4] - blocks).square().mean()


def test_photograph_refusals():
    with pytest.raises(ValueError, match="unknown photograph 'lena': known are camera, astronaut"):
        data.photograph("lena")
    with pytest.raises(ValueError, match="gray picture"):
        data.photograph("camera", gray=False)
    with pytest.raises(ValueError, match="got 0"):
        data.photograph(size=0)


# Public sets: a small stand-in with its own registry and its own server --------------------------

NAMES = ["BSDS500/images/train/1.png", "BSDS500/images/train/2.png", "BSDS500/images/test/3.png"]


@pytest.fixture
def original(tmp_path):
    """A folder that holds the three files of a small set."""
    folder = tmp_path / "original"
    for i, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data.write_image(path, torch.full((3, 4, 5), i / 5))
    return folder


@pytest.fixture
def small_set(original, tmp_path, monkeypatch):
    """BSDS500 with only those files; TUTORIAL_DATA_DIR is an empty folder, the home is closed."""
    hashes = {name: hashlib.sha256((original / name).read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(download, "registry", lambda: hashes)
    monkeypatch.setattr(download, "RETRIES", 0)
    closed = download.SETS["BSDS500"]._replace(home="http://127.0.0.1:9/images")
    monkeypatch.setitem(download.SETS, "BSDS500", closed)
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def server(original, monkeypatch):
    """Serve the original files as the home of the set; returns the served folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=original)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        home = f"http://127.0.0.1:{httpd.server_port}/BSDS500/images"
        monkeypatch.setitem(download.SETS, "BSDS500", download.SETS["BSDS500"]._replace(home=home))
        yield original
        httpd.shutdown()
        thread.join()


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("layout", ["BSDS500/images", "BSR/BSDS500/data/images"])
def test_both_layouts_are_read(small_set, original, layout):
    shutil.copytree(original / "BSDS500/images", small_set / layout)
    assert data.available("BSDS500")
    train, test = data.bsds500("train"), data.bsds500("test")
    assert [x.mean().item() for x in train] == pytest.approx([0, 0.2], abs=1e-6)
    assert [tuple(x.shape) for x in test] == [(3, 4, 5)]


def test_download_into_the_data_folder(small_set, server, capfd):
    assert not data.available("BSDS500")
    assert len(data.bsds500("train")) == 2
    assert files_below(small_set) == NAMES[:2]
    assert "downloading BSDS500: 100%" in capfd.readouterr().err
    (server / NAMES[0]).unlink()  # what is there is not asked for again
    assert len(data.bsds500("train")) == 2
    assert capfd.readouterr().err == ""


def test_the_cache_is_used_without_the_variable(small_set, server, monkeypatch, tmp_path):
    monkeypatch.delenv("TUTORIAL_DATA_DIR")
    monkeypatch.setattr(download.pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    assert data.data_dir() == tmp_path / "cache" / "tutorial_lib"
    data.bsds500("test")
    assert files_below(tmp_path / "cache") == ["tutorial_lib/" + NAMES[2]]


def test_failed_download_leaves_nothing(small_set):
    with pytest.raises(ConnectionError, match=r"1\.png of BSDS500 \(Arbelaez.*Put the set's files"):
        data.bsds500("train")
    assert files_below(small_set) == []


def test_altered_download_is_refused_and_not_kept(small_set, server):
    (server / NAMES[1]).write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"not the registered BSDS500/images/train/2\.png"):
        data.bsds500("train")
    assert files_below(small_set) == NAMES[:1]


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"", lambda b: b[:-1] + b"x"])
def test_damaged_file_is_refused_with_what_was_expected_and_came(small_set, original, damage):
    shutil.copytree(original, small_set)
    path = small_set / NAMES[2]
    content = damage(path.read_bytes())
    path.write_bytes(content)
    expected, came = download.registry()[NAMES[2]], hashlib.sha256(content).hexdigest()
    message = rf"3\.png is not the original.*{expected}, got {came} \({len(content)} bytes\)"
    with pytest.raises(ValueError, match=message):
        data.bsds500("test")
    assert len(data.bsds500("train")) == 2


def test_val_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="68 images of bsd68 lie in it"):
        data.bsds500("val")
    with pytest.raises(ValueError, match="unknown split 'dev': allowed are 'train' and 'test'"):
        data.bsds500("dev")
    with pytest.raises(ValueError, match="unknown data set 'ImageNet': known are BSDS500, BSD68"):
        data.available("ImageNet")


def test_registry_is_complete():
    counts = {name: len(download.files_of(name)) for name in download.SETS}
    assert counts == {"BSDS500": 400, "BSD68": 68, "Set5": 5, "Levin": 1}
    hashes = [h for h in download.registry().values() if h != "-"]
    assert len(set(hashes)) == 473
    assert all(len(h) == 64 for h in hashes)
    for name, (folder, home, others, _) in download.SETS.items():
        assert home.startswith("https://raw.githubusercontent.com/"), name
        assert not any(p.endswith("/") for p in (folder, home, *others))


# Public sets: the real ones, where they are --------------------------------------------------


def needs(name):
    absent = not data.available(name)
    return [pytest.mark.data, pytest.mark.skipif(absent, reason=f"{name} is not on this disk")]


@pytest.mark.parametrize(
    "split", [pytest.param(s, marks=needs("BSDS500")) for s in ("train", "test")]
)
def test_bsds500(split):
    images = data.bsds500(split)
    assert len(images) == 200
    assert {tuple(x.shape) for x in images} == {(3, 321, 481), (3, 481, 321)}
    assert all(x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1 for x in images)


@pytest.mark.parametrize("load", [pytest.param(data.bsd68, marks=needs("BSD68"))])
def test_bsd68(load):
    images = load()
    assert len(images) == 68
    assert {tuple(x.shape) for x in images} == {(321, 481), (481, 321)}


@pytest.mark.parametrize("load", [pytest.param(data.set5, marks=needs("Set5"))])
def test_set5(load):
    images = load()
    assert list(images) == ["baby", "bird", "butterfly", "head", "woman"]
    assert [tuple(x.shape[1:]) for x in images.values()] == [
        (512, 512), (288, 288), (256, 256), (280, 280), (344, 228)
    ]  # fmt: skip


# Kernels and noise -----------------------------------------------------------------------------


def write_levin_mat(path, kernels):
    """A MATLAB 7.3 file with a 1 x 8 cell array, as h5py sees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        cells = [file.create_dataset(f"#refs#/{i}", data=k.T) for i, k in enumerate(kernels)]
        file["kernels"] = np.array([[c.ref] for c in cells], dtype=h5py.ref_dtype)


def stand_in_kernels():
    rng = np.random.default_rng(0)
    return [k / k.sum() for k in (rng.random((n, n)) for n in degrade._LEVIN_SIZES)]


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_levin_kernels_of_both_formats(tmp_path, monkeypatch, kind):
    kernels = stand_in_kernels()
    digest = b"".join(np.round(1e6 * k).astype("<i4").tobytes() for k in kernels)
    monkeypatch.setattr(degrade, "_LEVIN_SHA256", hashlib.sha256(digest).hexdigest())
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    if kind == "mat":
        write_levin_mat(tmp_path / "levin09/Levin09.mat", kernels)
    else:
        (tmp_path / "levin09").mkdir()
        np.savez(
            tmp_path / "levin09/kernels.npz",
            **{f"kernel_{i + 1}": k for i, k in enumerate(kernels)},
        )
    loaded = data.levin_kernels()
    assert all(k.dtype == torch.float64 for k in loaded)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(loaded, kernels, strict=True))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda k: k[:7], "expected kernels of sizes"),
        (lambda k: k[::-1], "expected kernels of sizes"),
        (lambda k: [2 * k[0], *k[1:]], "expected kernels that sum to 1, got sums .2.0, 1.0"),
        (lambda k: k, "not the kernels of 2009: expected sha256"),
    ],
)
def test_levin_kernels_refuses_other_kernels(tmp_path, monkeypatch, spoil, message):
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    write_levin_mat(tmp_path / "levin09/Levin09.mat", spoil(stand_in_kernels()))
    with pytest.raises(ValueError, match=message):
        data.levin_kernels()


def test_levin_kernels_refuses_a_truncated_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    write_levin_mat(tmp_path / "levin09/Levin09.mat", stand_in_kernels())
    path = tmp_path / "levin09/Levin09.mat"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"Levin09\.mat: cannot be read"):
        data.levin_kernels()


@pytest.mark.parametrize("load", [pytest.param(data.levin_kernels, marks=needs("Levin"))])
def test_levin_kernels(load):
    kernels = load()
    assert [len(k) for k in kernels] == [19, 17, 15, 27, 13, 21, 23, 23]
    assert all(k.min() >= 0 and abs(k.sum() - 1) < 1e-12 for k in kernels)


def test_gaussian_kernel():
    k = data.gaussian_kernel(1.6)
    i = torch.arange(-5, 6, dtype=torch.float64)
    assert k.shape == (11, 11)
    assert k.sum() == pytest.approx(1, abs=1e-12)
    assert torch.equal(k, k.T)
    torch.testing.assert_close(k[5] / k[5, 5], torch.exp(-(i**2) / (2 * 1.6**2)))
    assert data.gaussian_kernel(0.7, size=25).shape == (25, 25)
    for options, message in [((0.0, 5), "sigma"), ((1.0, 4), "odd"), ((1.0, -1), "odd")]:
        with pytest.raises(ValueError, match=message):
            data.gaussian_kernel(options[0], size=options[1])


def test_noise_is_white_seeded_and_not_clipped():
    x = torch.full((300, 301), 0.9)
    n = data.add_noise(x, 0.2, seed=3) - x
    assert n.mean() == pytest.approx(0, abs=4 * 0.2 / 300)
    assert n.std() == pytest.approx(0.2, rel=0.02)
    assert (x + n).max() > 1.2
    for shift in ((0, 1), (1, 0), (7, 3)):
        assert (n * n.roll(shift, (0, 1))).mean().abs() < 0.04 * 4 / 300
    assert torch.equal(n, data.add_noise(x, 0.2, seed=3) - x)
    assert not torch.equal(n, data.add_noise(x, 0.2, seed=4) - x)
    exact = data.add_noise(x.double(), 0.2, seed=3)
    assert (exact - data.add_noise(x, 0.2, seed=3)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("x", "sigma", "message"),
    [
        (torch.zeros(3), -0.1, "at least 0 and finite, got -0.1"),
        (torch.zeros(3), float("nan"), "got nan"),
        (torch.zeros(3).int(), 0.1, "got torch.int32"),
        (torch.full((2, 3), torch.nan), 0.1, r"NaN in a tensor of shape \(2, 3\)"),
    ],
)
def test_noise_refusals(x, sigma, message):
    with pytest.raises(ValueError, match=message):
        unwrap(data.add_noise)(x, sigma)


# The reader's own files ------------------------------------------------------------------------

RNG = np.random.default_rng(0)
GRAY8, COLOUR8 = (RNG.integers(0, 256, s, dtype=np.uint8) for s in ((5, 7), (5, 7, 3)))
GRAY16, COLOUR16 = (RNG.integers(0, 65536, s, dtype=np.uint16) for s in ((5, 7), (5, 7, 3)))


@pytest.mark.parametrize("array", [GRAY8, COLOUR8, GRAY16, COLOUR16], ids=lambda a: str(a.dtype))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_write_then_read_is_exact(tmp_path, array, suffix):
    path = tmp_path / f"x{suffix}"
    bits = 8 * array.dtype.itemsize
    x = torch.from_numpy(array / (2.0**bits - 1))
    x = x.movedim(-1, 0) if x.ndim == 3 else x
    data.write_image(path, x, bits=bits)
    assert files.read_array(path).dtype == array.dtype
    torch.testing.assert_close(data.read_image(path), x.float(), rtol=0, atol=0)
    assert files_below(tmp_path) == [path.name]


def test_16_bit_png_is_what_others_read(tmp_path):
    data.write_image(tmp_path / "x.png", torch.from_numpy(GRAY16 / 65535), bits=16)
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), GRAY16)
    data.write_image(tmp_path / "c.png", torch.from_numpy(COLOUR16 / 65535).movedim(-1, 0), bits=16)
    with Image.open(tmp_path / "c.png") as image:
        assert np.array_equal(np.asarray(image), COLOUR16 // 256)  # Pillow keeps the high byte


def test_write_clips_and_rounds(tmp_path):
    data.write_image(tmp_path / "x.png", torch.tensor([[-0.5, 1.5, 0.5, 0.4 / 255, 0.6 / 255]]))
    assert files.read_array(tmp_path / "x.png").tolist() == [[0, 255, 128, 0, 1]]


def test_jpeg_is_close(tmp_path):
    x = data.photograph("chelsea", size=64, gray=False)
    data.write_image(tmp_path / "x.jpg", x)
    assert (data.read_image(tmp_path / "x.jpg") - x).abs().mean() < 0.01


def test_pillow_modes(tmp_path):
    def read(image, name="x.png", **options):
        image.save(tmp_path / name, **options)
        return files.read_array(tmp_path / name)

    colour, gray = Image.fromarray(COLOUR8), Image.fromarray(GRAY8)
    assert np.array_equal(read(colour), np.moveaxis(COLOUR8, -1, 0))
    assert np.array_equal(read(colour, "x.bmp"), np.moveaxis(COLOUR8, -1, 0))
    assert np.array_equal(read(gray, "x.tif", compression="tiff_lzw"), GRAY8)
    palette = colour.quantize(16)
    assert np.array_equal(read(palette), np.moveaxis(np.asarray(palette.convert("RGB")), -1, 0))
    assert set(np.unique(read(gray.convert("1")))) <= {0, 255}
    assert read(colour.convert("CMYK"), "x.jpg").shape == (3, 5, 7)


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.dstack([COLOUR8, np.zeros((5, 7), np.uint8)])
    rgba[0, :, 3], rgba[1, :, 3] = 255, 51
    Image.fromarray(rgba).save(tmp_path / "x.png")
    x = np.moveaxis(files.read_array(tmp_path / "x.png").astype(int), 0, -1)
    assert np.array_equal(x[0], COLOUR8[0])
    assert np.array_equal(x[1], np.round(0.2 * COLOUR8[1] + 0.8 * 255))
    assert (x[2:] == 255).all()
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")  # gray and alpha stays gray
    assert files.read_array(tmp_path / "la.png").shape == (5, 7)
    deep = np.dstack([COLOUR16, np.full((5, 7), 65535, np.uint16)])
    tifffile.imwrite(tmp_path / "x.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(files.read_array(tmp_path / "x.tif"), np.moveaxis(COLOUR16, -1, 0))


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    Image.fromarray(GRAY8).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(files.read_array(tmp_path / "x.png"), np.rot90(GRAY8, -1))


def test_npy_axes(tmp_path):
    def read(array):
        np.save(tmp_path / "x.npy", array)
        return tuple(data.read_image(tmp_path / "x.npy").shape)

    assert read(GRAY8) == (5, 7)
    assert read(COLOUR8) == read(np.moveaxis(COLOUR16, -1, 0)) == (3, 5, 7)
    assert read(np.zeros((3, 9, 1))) == (3, 9, 1)
    assert read(np.zeros((31, 8, 9), np.float32)) == (31, 8, 9)


def test_floats_are_taken_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[-0.25, 0.5, 1.25]]))
    assert data.read_image(tmp_path / "x.npy").tolist() == [[-0.25, 0.5, 1.25]]


def test_mat_of_both_versions(tmp_path):
    cube = RNG.random((4, 5, 6))  # (h, w, bands)
    scipy.io.savemat(tmp_path / "v5.mat", {"cube": cube, "wavelengths": np.arange(6.0)})
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["cube"], file["wavelengths"] = cube.T, np.arange(6.0)[:, None]
    for name in ("v5.mat", "v73.mat"):
        x = data.read_image(tmp_path / name)
        np.testing.assert_array_equal(x, np.moveaxis(cube, -1, 0).astype(np.float32))
    scipy.io.savemat(tmp_path / "two.mat", {"a": cube, "b": cube / 2})
    assert torch.equal(data.read_image(tmp_path / "two.mat", name="b") * 2, x)
    for wrong in (None, "c"):
        with pytest.raises(
            ValueError, match=r"choose with name= one of its variables \['a', 'b'\]"
        ):
            data.read_image(tmp_path / "two.mat", name=wrong)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_many_paged_tiff_is_a_cube(tmp_path, dtype):
    cube = RNG.integers(0, 2, (6, 4, 5)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", cube, photometric="minisblack")
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    np.testing.assert_array_equal(data.read_image(tmp_path / "x.tif"), (cube / top).astype("f4"))


def bad_file(path, kind):
    rows = np.arange(64, dtype=np.uint8)[:, None] + np.zeros((1, 64), np.uint8)
    Image.fromarray(rows).save(path.with_name("good.png"))
    png = path.with_name("good.png").read_bytes()
    tifffile.imwrite(path.with_name("good.tif"), rows)
    contents = {
        "empty.png": b"",
        "truncated.png": png[: len(png) // 2],
        "header.png": png[:20],
        "corrupt.png": png[:60] + bytes(20) + png[80:],
        "text.png": b"not an image",
        "text.mat": b"not an array" * 40,
        "cut.npy": b"\x93NUMPY\x01\x00",
        "cut.tif": path.with_name("good.tif").read_bytes()[:300],
    }
    arrays = {
        "nan.npy": np.full((4, 4), np.nan),
        "inf.npy": np.full((4, 4), np.inf),
        "int64.npy": np.zeros((4, 4), np.int64),
        "complex.npy": np.zeros((4, 4), complex),
        "rank1.npy": np.zeros(4),
        "rank4.npy": np.zeros((2, 3, 4, 4)),
        "none.npy": np.zeros((0, 4)),
        "range.npy": np.array([[0.0, 255.0]]),
        "pickle.npy": np.array([{}]),
    }
    if kind in arrays:
        np.save(path, arrays[kind], allow_pickle=True)
    elif kind in contents:
        path.write_bytes(contents[kind])


BAD_FILES = {
    "empty.png": "the file is empty",
    "truncated.png": "cannot be read",
    "header.png": "cannot be read",
    "corrupt.png": "cannot be read",
    "text.png": "cannot be read",
    "text.mat": "cannot be read",
    "cut.npy": "cannot be read",
    "cut.tif": "cannot be read",
    "nan.npy": "holds NaN",
    "inf.npy": "infinite",
    "int64.npy": "int64 is not one of bool, uint8, uint16 and float",
    "complex.npy": "complex128 is not one of",
    "rank1.npy": r"expected shape \(h, w\) or \(c, h, w\), got \(4,\)",
    "rank4.npy": r"got \(2, 3, 4, 4\)",
    "none.npy": r"got \(0, 4\)",
    "range.npy": r"must be intensities in \[0, 1\].* got \[0, 255\]",
    "pickle.npy": "cannot be read",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_get_one_clear_line(tmp_path, kind):
    bad_file(tmp_path / kind, kind)
    with pytest.raises(ValueError, match=f"{kind}: .*{BAD_FILES[kind]}") as caught:
        data.read_image(tmp_path / kind)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png: no such file"):
        data.read_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    ("name", "x", "options", "message"),
    [
        ("x.gif", torch.zeros(4, 4), {}, r"cannot write 8 bits as '.gif': allowed: .png \(8 or 16"),
        ("x.jpg", torch.zeros(4, 4), {"bits": 16}, "cannot write 16 bits as '.jpg'"),
        ("x.png", torch.zeros(2, 4, 4), {}, r"got \(2, 4, 4\)"),
        ("x.png", torch.zeros(4, 4).int(), {}, "got torch.int32"),
        ("x.png", torch.full((4, 4), torch.nan), {}, "without NaN"),
        ("folder/x.png", torch.zeros(4, 4), {}, "does not exist or cannot be written"),
    ],
)
def test_write_refusals_write_nothing(tmp_path, name, x, options, message):
    with pytest.raises((ValueError, OSError), match=message):
        unwrap(data.write_image)(tmp_path / name, x, **options)
    assert files_below(tmp_path) == []


def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    data.write_image(path, torch.zeros(4, 4))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        data.write_image(path, torch.ones(4, 4))
    assert files_below(tmp_path) == ["x.png"]
    assert data.read_image(path).max() == 0
