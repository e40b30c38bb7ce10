"""Pairs of two modalities: reading them, refusing them, training patches."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data import (
    bicubic,
    cave,
    cave_scenes,
    check_pair,
    guided_pairs,
    guided_patches,
    luma,
    motorcycle,
    on_disk,
    pairs,
    write_image,
)
from tutorial_lib.data.guided import TESTED, bundled_pairs
from tutorial_lib.super_resolution import crop


def picture(path, *shape):
    path.parent.mkdir(exist_ok=True)
    write_image(path, torch.rand(shape, generator=torch.Generator().manual_seed(len(path.stem))))


def test_pairs_side_by_side_and_in_two_folders_are_the_same(tmp_path):
    for name in "ab":
        picture(tmp_path / "one" / f"{name}_guide.png", 3, 20, 30)
        picture(tmp_path / "one" / f"{name}_disparity.png", 20, 30)
        for role, new in (("guide", "rgb"), ("disparity", "nir")):
            other = tmp_path / "two" / new / f"{name}.png"
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes((tmp_path / "one" / f"{name}_{role}.png").read_bytes())
    (tmp_path / "one" / "notes.txt").write_text("not a picture")
    first, second = pairs(tmp_path / "one"), pairs(tmp_path / "two")
    assert [p.name for p in first] == [p.name for p in second] == ["a", "b"]
    assert first[0].guide.shape == (3, 20, 30)
    assert first[0].target.shape == (20, 30)
    for p, q in zip(first, second, strict=True):
        assert torch.equal(p.guide, q.guide)
        assert torch.equal(p.target, q.target)


def test_pairs_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no pairs X_guide"):
        pairs(tmp_path)
    picture(tmp_path / "a_guide.png", 20, 30)
    with pytest.raises(ValueError, match="a without guide or target"):
        pairs(tmp_path)
    picture(tmp_path / "a_depth.png", 30, 20)
    with pytest.raises(ValueError, match=r"a: the guide \(20, 30\) .* the target \(30, 20\)"):
        pairs(tmp_path)
    (tmp_path / "a_guide.png").unlink()
    np.save(tmp_path / "a_guide.npy", np.zeros((5, 20, 30)))
    with pytest.raises(ValueError, match=r"got \(5, 20, 30\)"):
        pairs(tmp_path)


def test_check_pair_counts_in_the_scale():
    check_pair(torch.zeros(3, 20, 32), torch.zeros(5, 8), scale=4)
    with pytest.raises(ValueError, match=r"\(20, 30\) must have 4 times .* \(5, 8\)"):
        check_pair(torch.zeros(20, 30), torch.zeros(5, 8), scale=4)


def test_luma():
    x = torch.tensor([1.0, 0.5, 0.25])[:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(luma(x), torch.full((2, 2), 0.299 + 0.587 / 2 + 0.114 / 4))
    assert torch.equal(luma(x[0]), x[0])
    with pytest.raises(ValueError, match=r"got \(4, 2, 2\)"):
        luma(torch.zeros(4, 2, 2))


def test_motorcycle_fills_what_is_unknown_with_the_nearest():
    from skimage.data import stereo_motorcycle

    disparity = torch.from_numpy(np.array(stereo_motorcycle()[2], np.float32))
    pair = motorcycle()
    known = disparity.isfinite()
    assert not known.all()
    torch.testing.assert_close(64 * pair.target[known], disparity[known])
    assert 0 < pair.target.min() < pair.target.max() < 1
    assert pair.guide.shape == (3, *pair.target.shape)
    row, column = next(iter((~known).nonzero().tolist()))
    distance = (known.nonzero() - torch.tensor([row, column])).square().sum(1)
    nearest = known.nonzero()[distance == distance.min()]
    assert pair.target[row, column] in [pair.target[tuple(p)] for p in nearest.tolist()]


def test_bicubic_keeps_what_a_small_image_holds():
    """Away from the border a plane is unchanged; of a checkerboard its mean remains."""
    h, w = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    plane = 0.004 * h + 0.002 * w
    inner = (slice(16, -16),) * 2
    torch.testing.assert_close(bicubic(plane, scale=4)[inner], plane[inner])
    board = (h + w) % 2
    assert (bicubic(board, scale=4) - 0.5)[inner].abs().max() < 0.015


@pytest.mark.parametrize("kind", TESTED)
def test_patches_depend_on_their_number_alone(kind):
    draw = {"kind": kind, "scale": 4, "size": 24, "bundled": True}
    all_ = guided_patches(torch.arange(40), **draw)
    some = guided_patches(torch.tensor([7, 3]), **draw)
    for a, b in zip(all_, some, strict=True):
        assert a.shape == (40, 24, 24)
        assert torch.equal(a[[7, 3]], b)
    other = guided_patches(torch.arange(40), seed=1, **draw)
    assert not torch.equal(all_[0], other[0])
    x, y, z = all_
    turned = (z.mean((1, 2)) < 0).float().mean()
    assert (0.2 < turned < 0.8) if kind == "depth" else turned == 0
    assert y.mean((1, 2)).min() > 0
    # The estimate lacks the details and has the rest.
    assert (x - z).mean((1, 2)).abs().max() < 0.1
    assert 0 < (x - z).var() < 0.5 * (z - z.mean((1, 2), keepdim=True)).var()


def test_of_several_draws_the_hardest_is_kept():
    draw = {"kind": "depth", "scale": 4, "size": 24, "bundled": True}
    x, _, z = guided_patches(torch.arange(12), **draw)
    hardest, _, truth = guided_patches(torch.arange(4), draws=3, **draw)
    errors = (x - z).square().sum((1, 2)).view(4, 3)
    torch.testing.assert_close((hardest - truth).square().sum((1, 2)), errors.amax(1))


def test_unknown_kinds_and_splits_are_named():
    with pytest.raises(ValueError, match="unknown kind 'sound': allowed are depth, nir, spectral"):
        guided_pairs("sound", "test")
    with pytest.raises(ValueError, match="unknown split 'val': allowed are 'train' and 'test'"):
        guided_pairs("depth", "val")


def test_absent_sets_are_told_with_their_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    for kind, home in [("depth", "middlebury"), ("nir", "EPFL"), ("spectral", "columbia")]:
        assert not on_disk(kind)
        with pytest.raises(FileNotFoundError, match=home):
            guided_pairs(kind, "train")
        assert bundled_pairs(kind)[0].target.ndim == 2


@pytest.mark.parametrize("kind", TESTED)
def test_training_and_test_pairs_are_apart(kind):
    if not on_disk(kind):
        pytest.skip("the set is not on disk")
    train, test = guided_pairs(kind, "train"), guided_pairs(kind, "test")
    assert {p.name for p in test} == set(TESTED[kind])
    assert not {p.name for p in train} & {p.name for p in test}


@pytest.mark.parametrize(("name", "expected"), [("books", 1.604), ("moebius", 1.315)])
def test_bicubic_error_of_middlebury_is_the_known_one(name, expected):
    if not on_disk("depth"):
        pytest.skip("the set is not on disk")
    (pair,) = (p for p in guided_pairs("depth", "test") if p.name == name)
    z = crop(pair.target, scale=4)
    error = 255 * (bicubic(z, scale=4) - z).square().mean().sqrt()
    assert error.item() == pytest.approx(expected, abs=1e-3)


def scene(root, name, *, bands=31, alpha=(), odd=()):
    folder = root / "CAVE" / "complete_ms_data" / f"{name}_ms" / f"{name}_ms"
    folder.mkdir(parents=True)
    for k in range(1, bands + 1):
        level = np.full((6, 8 + (k in odd)), 100 * k, np.uint16)
        image = Image.fromarray(level)
        if k in alpha:
            eight = np.full((6, 8), k, np.uint8)
            image = Image.fromarray(np.stack([eight] * 3 + [np.full_like(eight, 255)], -1))
        image.save(folder / f"{name}_ms_{k:02}.png")


def test_cave(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no scene of CAVE"):
        cave_scenes()
    scene(tmp_path, "toys")
    scene(tmp_path, "paints", alpha=range(1, 32))
    scene(tmp_path, "short", bands=30)
    scene(tmp_path, "odd", odd=(5,))
    assert cave_scenes() == ["odd", "paints", "short", "toys"]
    x = cave("toys")
    assert x.shape == (31, 6, 8)
    torch.testing.assert_close(x[:, 0, 0], 100 * torch.arange(1, 32) / 65535)
    torch.testing.assert_close(cave("paints")[:, 0, 0], torch.arange(1, 32) / 255)
    with pytest.raises(FileNotFoundError, match=r"short_ms_31\.png"):
        cave("short")
    with pytest.raises(ValueError, match="bands of different sizes"):
        cave("odd")
