"""Mixed X-rays: the response, exact sums, weave, cracks, shifts, and what is refused."""

import numpy as np
import pytest
import torch

from tutorial_lib.data import (
    gray_response,
    luma,
    mixture,
    paintings_on_disk,
    write_image,
    xray_pairs,
)
from tutorial_lib.data.xray import PAINTINGS


@pytest.fixture
def pictures():
    g = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 40, 50, generator=g)


def test_the_response_is_the_documented_curve_and_not_monotone():
    g = torch.linspace(0, 1, 1001, dtype=torch.float64)
    f = gray_response(g.expand(3, 1, -1))[0]
    assert (
        f - (0.1 + 0.9 * g**1.5 + 0.3 * torch.exp(-(((g - 0.2) / 0.1) ** 2)))
    ).abs().max() < 1e-6
    assert f.min() == f[0] > 0.1
    assert f.max() == pytest.approx(1)
    top, dip = f[:300].argmax(), 300 + f[300:600].argmin()
    assert (g[top], g[dip]) == (pytest.approx(0.21), pytest.approx(0.357))
    assert (f[top], f[dip]) == (pytest.approx(0.4836, abs=1e-4), pytest.approx(0.3175, abs=1e-4))


def test_the_response_depends_on_the_gray_alone(pictures):
    gray = luma(pictures[0]).expand(3, -1, -1)
    torch.testing.assert_close(gray_response(pictures[0]), gray_response(gray))


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
def test_the_parts_add_up_exactly(pictures, ratio):
    mix = mixture(*pictures, ratio=ratio, weave=0.04, cracks=0.1, shift=(1, -2))
    assert torch.equal(mix.xray, mix.surface + mix.hidden)
    plain = mixture(*pictures, ratio=ratio)
    torch.testing.assert_close(plain.surface, ratio * gray_response(pictures[0]))
    torch.testing.assert_close(plain.hidden, (1 - ratio) * gray_response(pictures[1]))
    assert torch.equal(plain.visible, pictures[0])
    assert torch.equal(plain.hidden, mix.hidden)  # threads and cracks are counted to the surface


def test_threads_repeat_and_cracks_are_thin_lines(pictures):
    plain = mixture(*pictures, ratio=0.5)
    threads = mixture(*pictures, ratio=0.5, weave=0.1).surface - plain.surface
    torch.testing.assert_close(threads[10:, 10:], threads[:-10, :-10], atol=1e-6, rtol=0)
    assert threads.abs().max() == pytest.approx(0.1, abs=1e-5)
    lines = plain.surface - mixture(*pictures, ratio=0.5, cracks=0.2, seed=3).surface
    assert -1e-6 < lines.min()
    assert lines.max() == pytest.approx(0.2, abs=1e-5)
    assert 0.02 < (lines > 0.1).float().mean() < 0.2
    again = plain.surface - mixture(*pictures, ratio=0.5, cracks=0.2, seed=3).surface
    other = plain.surface - mixture(*pictures, ratio=0.5, cracks=0.2, seed=4).surface
    assert torch.equal(lines, again)
    assert not torch.equal(lines, other)


def test_a_shift_moves_the_photograph_alone(pictures):
    mix, plain = mixture(*pictures, ratio=0.5, shift=(2, -3)), mixture(*pictures, ratio=0.5)
    assert torch.equal(mix.xray, plain.xray)
    assert torch.equal(mix.visible[:, 2:, :-3], pictures[0][:, :-2, 3:])
    assert torch.equal(mix.visible[:, :2, :-3], pictures[0][:, :1, 3:].expand(-1, 2, -1))


def test_what_is_refused(pictures):
    with pytest.raises(ValueError, match=r"\(3, 40, 50\) and \(3, 40, 49\)"):
        mixture(pictures[0], pictures[1][..., 1:], ratio=0.5)
    for name, value in (("ratio", 0.0), ("ratio", 1), ("weave", -0.1), ("cracks", float("nan"))):
        with pytest.raises(ValueError, match=f"{name} = {value}"):
            mixture(*pictures, **{"ratio": 0.5, name: value})
    with pytest.raises(ValueError, match="must be in"):
        gray_response(pictures[0] + 0.5)


@pytest.mark.parametrize("size", [24, 65])
def test_pairs_without_a_download(size):
    pairs = xray_pairs(size=size, bundled=True)
    assert [name for name, _, _ in pairs] == ["coffee over astronaut", "chelsea over rocket"]
    for _, visible, hidden in pairs:
        assert visible.shape == hidden.shape == (3, size, size)
        assert mixture(visible, hidden, ratio=0.5).xray.std() > 0.01


def test_paintings_are_taken_where_all_three_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    (tmp_path / "paintings").mkdir()
    rng = np.random.default_rng(0)
    for file, _, _ in PAINTINGS.values():
        assert not paintings_on_disk()
        picture = torch.from_numpy(rng.random((3, 60, 90), dtype=np.float32))
        write_image(tmp_path / "paintings" / file, picture)
    assert paintings_on_disk()
    pairs = xray_pairs(size=16)
    assert [p[0] for p in pairs] == ["harvesters over starry night", "shipwreck over harvesters"]
    assert torch.equal(pairs[0][1], pairs[1][2])
