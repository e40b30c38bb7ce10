"""Bicubic resizing against known values, coupled dictionaries on planted codes, back-projection."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import super_resolution as table
from tutorial_lib.data import available, photograph
from tutorial_lib.metrics import psnr
from tutorial_lib.super_resolution import (
    CoupledDictionary,
    back_project,
    crop,
    downscale,
    features,
    fit_high,
    imresize,
    luminance,
    scale_of,
    super_resolve,
    train_coupled,
    upscale,
)
from tutorial_lib.training import load_weights

SIZES = [(12, 4), (12, 6), (7, 21), (11, 5), (9, 9), (5, 13), (40, 10)]


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


def shipped(scale):
    return CoupledDictionary(**load_weights(f"coupled{scale}")[0])


def random_pair(scale=2, atoms=50, n=20):
    f, p = 36 * scale**2, 9 * scale**2
    low = torch.randn(n, atoms, generator=torch.Generator().manual_seed(0))
    components = torch.linalg.qr(torch.randn(f, n, generator=torch.Generator().manual_seed(1)))[0]
    high = torch.randn(p, atoms, generator=torch.Generator().manual_seed(2))
    return CoupledDictionary(components, low / low.norm(dim=0), high)


# Resizing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_weights_sum_to_one_and_constants_stay(n, m, antialias):
    flat = torch.full((2, n, n), 0.3, dtype=torch.float64)
    out = imresize(flat, (m, n), antialias=antialias)
    assert out.shape == (2, m, n)
    assert torch.allclose(out, torch.full_like(out, 0.3), atol=1e-14, rtol=0)


@pytest.mark.parametrize("r", [2, 3, 4])
def test_ramps_are_exact_inside(r):
    """Both ways, at the positions (j + 1/2)/r - 1/2 of the new samples."""
    for n, m in ((48, 48 * r), (48 * r, 48)):
        ramp = 0.25 * torch.arange(n, dtype=torch.float64) - 3
        out = imresize(ramp[None], (1, m))[0]
        wanted = 0.25 * ((torch.arange(m, dtype=torch.float64) + 0.5) * n / m - 0.5) - 3
        edge = 2 * r + 1 if m > n else 3
        inside = slice(edge, -edge)
        assert torch.allclose(out[inside], wanted[inside], atol=1e-12)
        assert (out - wanted).abs().max() > 1e-3  # the mirror bends it at the border


def test_squares_are_exact_inside_when_enlarged():
    """Keys' cubic with -1/2 reproduces polynomials of degree two; other slopes do not."""
    t = torch.arange(20, dtype=torch.float64)
    out = imresize((t**2)[None], (1, 60))[0]
    wanted = ((torch.arange(60, dtype=torch.float64) + 0.5) / 3 - 0.5) ** 2
    assert torch.allclose(out[8:-8], wanted[8:-8], atol=1e-10)


def test_known_weights_of_scale_two():
    """Enlarging: -3, 29, 111, -9 (of 128), from w(5/4), w(1/4), w(3/4), w(7/4)."""
    impulse = torch.zeros(1, 9, dtype=torch.float64)
    impulse[0, 4] = 1
    out = imresize(impulse, (1, 18))[0]
    wanted = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 128
    assert torch.allclose(out[5:13], wanted)
    assert (out[:5] == 0).all() and (out[13:] == 0).all()
    # reducing: half as high and twice as wide, w(j/4)/2 at odd j
    reduced = imresize(torch.eye(16, dtype=torch.float64), (16, 8))[:, 4]
    assert torch.allclose(reduced[5:13], torch.flip(wanted, [0]) / 2)
    assert torch.isclose(reduced.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_borders_are_mirrored_with_the_border_sample_twice():
    x = rand(6, 8)
    doubled = torch.cat([x.flip(-1), x, x.flip(-1)], -1)
    assert torch.allclose(imresize(x, (6, 24)), imresize(doubled, (6, 72))[:, 24:48], atol=1e-14)


@pytest.mark.parametrize(("n", "m"), [(60, 20), (60, 30), (20, 60), (60, 25), (25, 60)])
def test_inside_it_is_pillows_bicubic_and_torchs_with_antialias(n, m):
    x = rand(n, n)
    out = imresize(x, (m, m))
    picture = Image.fromarray(x.float().numpy()).resize((m, m), Image.Resampling.BICUBIC)
    inside = (slice(m // 4, -(m // 4)),) * 2
    assert np.abs(np.asarray(picture)[inside] - out[inside].numpy()).max() < 1e-6
    peer = F.interpolate(
        x[None, None], (m, m), mode="bicubic", antialias=True, align_corners=False
    )[0, 0]
    assert torch.allclose(peer[inside], out[inside], atol=1e-12)


def test_antialias_matters_exactly_when_reducing():
    x = rand(12, 12)
    assert torch.equal(imresize(x, (24, 24)), imresize(x, (24, 24), antialias=False))
    assert (imresize(x, (4, 4)) - imresize(x, (4, 4), antialias=False)).abs().max() > 0.05


def test_batches_axes_and_dtype():
    x = rand(2, 3, 10, 8)
    out = imresize(x, (5, 4))
    assert torch.allclose(out[1, 2], imresize(x[1, 2], (5, 4)))
    assert torch.allclose(imresize(x.mT, (4, 5)), out.mT, atol=1e-14)
    assert imresize(x.float(), (5, 4)).dtype == torch.float32


def test_luminance_is_studio_range():
    colours = torch.eye(4, 3, dtype=torch.float64)[:, :, None, None]  # red, green, blue, black
    wanted = torch.tensor([81.481, 144.553, 40.966, 16.0], dtype=torch.float64)
    assert torch.allclose(255 * luminance(colours)[:, 0, 0], wanted)


@pytest.mark.data
@pytest.mark.parametrize(("scale", "published"), [(2, 33.66), (3, 30.39), (4, 28.42)])
def test_published_bicubic_rows_of_set5(scale, published):
    if not available("Set5"):
        pytest.skip("needs Set5")
    from tutorial_lib.data import set5

    scores = []
    for colour in set5().values():
        x = table.rounded(luminance(crop(colour.double(), scale=scale)))
        z = table.rounded(upscale(table.rounded(downscale(x, scale=scale)), scale=scale))
        scores.append(psnr(z[scale:-scale, scale:-scale], x[scale:-scale, scale:-scale]).item())
    assert sum(scores) / 5 == pytest.approx(published, abs=0.02)


# Features ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [2, 3, 4])
def test_features_of_polynomials(s):
    """First differences of a plane are its slopes times s, second differences of a square s^2."""
    i, j = torch.meshgrid(*(torch.arange(8.0 * s, dtype=torch.float64),) * 2, indexing="ij")
    plane = features(0.5 * i - 2 * j, scale=s).reshape(-1, 4, 9 * s * s)
    assert len(plane) == 16
    wanted = torch.tensor([0.5 * s, -2.0 * s, 0, 0], dtype=torch.float64)
    assert torch.allclose(plane, wanted[:, None].expand_as(plane))
    square = features(i**2, scale=s).reshape(-1, 4, 9 * s * s)
    assert torch.allclose(square[:, 2], torch.tensor(float(s * s), dtype=torch.float64))
    assert (square[:, 3].abs() < 1e-9).all()


def test_features_ignore_a_constant_and_scale_with_the_contrast():
    x = rand(15, 18)
    assert torch.allclose(features(x + 0.7, scale=3), features(x, scale=3), atol=1e-12)
    assert torch.allclose(features(3 * x, scale=3), 3 * features(x, scale=3), atol=1e-12)


# Coupled dictionaries ----------------------------------------------------------------------------


def test_high_dictionary_is_the_least_squares_one():
    codes, details = rand(200, 12) * (rand(200, 12, seed=1) < 0.3), rand(200, 5, seed=2)
    D = fit_high(details, codes)
    error = (details - codes @ D.mT).square().sum()
    for seed in range(20):
        other = D + 0.01 * (rand(5, 12, seed=10 + seed) - 0.5)
        assert (details - codes @ other.mT).square().sum() > error
    gradient = (codes @ D.mT - details).mT @ codes
    assert gradient.abs().max() < 1e-10


def test_high_dictionary_is_recovered_and_unused_atoms_are_zero():
    planted = rand(6, 10)
    codes = rand(100, 10) * (rand(100, 10, seed=3) < 0.3)
    codes[:, 4] = 0
    found = fit_high(codes @ planted.mT, codes)
    assert torch.allclose(found[:, :4], planted[:, :4], atol=1e-9)
    assert found[:, 4].abs().max() < 1e-9


def test_training_lowers_the_error_of_what_it_has_seen_and_is_repeatable():
    pictures = [photograph(name, size=120) for name in ("camera", "coffee")]
    settings = {"scale": 3, "atoms": 100, "patches": 2000, "steps": 4}
    pair = train_coupled(pictures, **settings)
    assert scale_of(pair) == 3
    gram = pair.components.mT @ pair.components
    assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-5)
    assert torch.allclose(pair.low.norm(dim=0), torch.ones(100), atol=1e-5)
    x = pictures[0]
    y = downscale(x, scale=3)
    assert psnr(super_resolve(y, pair), x) > psnr(upscale(y, scale=3), x) + 0.5
    again = train_coupled(pictures, **settings)
    assert all(torch.equal(a, b) for a, b in zip(pair, again, strict=True))
    other = train_coupled(pictures, **settings, seed=1)
    assert not torch.equal(pair.low, other.low)


def test_details_scale_with_the_contrast_and_the_gain_and_not_with_the_brightness():
    pair, y = random_pair(), rand(9, 11).float()
    bare, full = upscale(y, scale=2), super_resolve(y, pair)
    assert torch.allclose(super_resolve(0.5 * y + 0.2, pair), 0.5 * full + 0.2, atol=1e-4)
    assert torch.equal(super_resolve(y, pair, gain=0.0), bare)
    double = super_resolve(y, pair, gain=2.0)
    assert torch.allclose(double - bare, 2 * (full - bare), atol=1e-5)
    assert torch.equal(full[:2], bare[:2])  # the ring that no patch covers
    assert (full - bare)[2:-2, 2:-2].abs().min() > 0


def test_every_patch_is_coded_by_so_many_atoms():
    """With one atom and one patch, the detail is a multiple of one column of `high`."""
    pair, y = random_pair(), rand(5, 5).float()
    detail = (super_resolve(y, pair, n_nonzero_coefs=1) - upscale(y, scale=2))[2:-2, 2:-2]
    cosines = F.normalize(pair.high, dim=0).mT @ F.normalize(detail.flatten(), dim=0)
    assert cosines.abs().max() == pytest.approx(1, abs=1e-4)


# Back-projection ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_each_step_of_back_projection_lowers_the_misfit(scale):
    x = photograph("coffee", size=96).double()
    y = downscale(x, scale=scale)
    misfits = []
    for steps in range(0, 12, 2):
        z = back_project(upscale(y, scale=scale), y, steps=steps)
        misfits.append((downscale(z, scale=scale) - y).norm().item())
    assert all(b < a for a, b in zip(misfits, misfits[1:], strict=False))
    assert misfits[-1] < 0.3 * misfits[0]


def test_back_projection_keeps_an_image_that_fits():
    x = rand(2, 12, 15)
    assert torch.allclose(back_project(x, downscale(x, scale=3)), x, atol=1e-12)
    assert torch.equal(back_project(x, rand(2, 4, 5), steps=0), x)


# Refusals ----------------------------------------------------------------------------------------


def test_refusals():
    x, y = rand(12, 12), rand(6, 6)
    pair = random_pair()
    with pytest.raises(ValueError, match=r"cannot be resized to \(0, 3\)"):
        imresize(x, (0, 3))
    with pytest.raises(ValueError, match="contains NaN"):
        imresize(x * torch.nan, (3, 3))
    with pytest.raises(ValueError, match=r"shape \(1, 12, 12\): \(\*batch, 3, h, w\)"):
        luminance(x[None])
    with pytest.raises(ValueError, match=r"scale = 1 and an image of shape \(12, 12\)"):
        features(x, scale=1)
    with pytest.raises(ValueError, match=r"multiples of scale = 5"):
        downscale(x, scale=5)
    with pytest.raises(ValueError, match=r"scale = 3 and an image of shape \(12, 12\)"):
        features(x, scale=3)
    with pytest.raises(ValueError, match=r"details \(5, 2\) and codes \(4, 3\)"):
        fit_high(rand(5, 2), rand(4, 3))
    with pytest.raises(ValueError, match=r"patches for atoms = 5000"):
        train_coupled([x.repeat(4, 4).float()], scale=2, atoms=5000)
    with pytest.raises(ValueError, match=r"steps = -1"):
        back_project(x, y, steps=-1)
    with pytest.raises(ValueError, match=r"no multiple of y of shape \(5, 6\)"):
        back_project(x, y[:5])
    with pytest.raises(ValueError, match=r"low \(20, 50\) and high \(36, 49\) do not fit"):
        super_resolve(y.float(), pair._replace(high=pair.high[:, 1:]))
    with pytest.raises(ValueError, match="n_nonzero_coefs = 0"):
        super_resolve(y.float(), pair, n_nonzero_coefs=0)


# The shipped pairs -------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "gain"), [(2, 1.5), (3, 1.0), (4, 0.7)])
def test_shipped_pairs_beat_bicubic_interpolation(scale, gain):
    pair = shipped(scale)
    assert scale_of(pair) == scale
    x = photograph("astronaut", size=192)
    y = downscale(x, scale=scale)
    assert psnr(super_resolve(y, pair), x) > psnr(upscale(y, scale=scale), x) + gain


@pytest.mark.data
def test_the_recorded_table_is_what_the_shipped_pairs_do():
    if not available("Set5"):
        pytest.skip("needs Set5")
    record = json.loads(table.FILE.read_text())
    now = table.score(shipped(3), 3)
    assert now.keys() == record["3"].keys()
    for method, scores in now.items():
        assert scores == pytest.approx(record["3"][method], abs=0.02)
