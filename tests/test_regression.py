"""The link to the visible picture: bands of its gray, and regressions on them."""

import pytest
import torch
from separation_cases import rand

from tutorial_lib.data.xray import gray_response, mixture, xray_pairs
from tutorial_lib.exclusion import haar_details
from tutorial_lib.regression import (
    curve_regression,
    edge_regression,
    linear_regression,
    standard_bands,
    visible_bands,
)
from tutorial_lib.separation_model import (
    convolve,
    update_phi,
)


def gray(picture):
    return torch.einsum("c,chw->hw", torch.tensor([0.299, 0.587, 0.114]), picture)[None]


def test_the_bands_are_orthogonal_and_hold_every_curve_between_the_knots():
    picture = torch.rand(1, 30, 30, generator=torch.Generator().manual_seed(0))
    bands = visible_bands(picture, knots=9).double()
    assert bands.shape == (8, 30, 30)
    gram = torch.einsum("ahw,bhw->ab", bands, bands) / 900
    torch.testing.assert_close(gram, torch.eye(8, dtype=torch.float64), atol=1e-5, rtol=0)
    knots = torch.quantile(picture.flatten(), torch.linspace(0, 1, 9))
    curve = (picture[0] - knots[3]).clamp(min=0).double()  # straight but for one knot
    torch.testing.assert_close(
        curve_regression(curve, bands), curve - curve.mean(), atol=1e-5, rtol=0
    )


def test_eliminating_phi_leaves_one_minus_r_squared():
    bands = visible_bands(torch.rand(1, 20, 20), knots=6).double()
    y = rand(20, 20)
    y -= y.mean()
    phi = update_phi(y, bands, size=1)
    left = (bands - convolve(phi, y[None])).square().sum()
    explained = curve_regression(y, bands).square().sum() / y.square().sum()
    torch.testing.assert_close(left, 400 * (5 - explained), rtol=1e-5, atol=0)


def test_regressions_recover_what_they_can_express():
    _, visible, hidden = xray_pairs(size=64, bundled=True)[0]
    surface = gray_response(visible)
    centred = surface - surface.mean()
    bands = visible_bands(gray(visible), knots=24)
    assert (curve_regression(surface, bands) - centred).square().mean() < 1e-5
    x = linear_regression(standard_bands(visible)[0] + 3, visible)
    torch.testing.assert_close(x, standard_bands(visible)[0], atol=1e-3, rtol=0)
    mix = mixture(visible, hidden, ratio=0.5)
    errors = [
        (f(mix.xray, bands) - 0.5 * centred).square().mean()
        for f in (curve_regression, edge_regression)
    ]
    assert errors[1] < 0.05 * errors[0]


def test_curve_regression_adds_the_designs_mean_over_each_gray():
    _, visible, hidden = xray_pairs(size=40, bundled=True)[0]
    mix = mixture(visible, hidden, ratio=0.4)
    bands = visible_bands(gray(visible), knots=40)
    ghost = curve_regression(mix.xray, bands) - (mix.surface - mix.surface.mean())
    torch.testing.assert_close(ghost, curve_regression(mix.hidden, bands), atol=0.02, rtol=0)


def test_edge_regression_is_the_argmin_over_the_curves():
    _, visible, hidden = xray_pairs(size=48, bundled=True)[0]
    mix = mixture(visible, hidden, ratio=0.5)
    x, bands = mix.xray.double(), visible_bands(gray(visible), knots=6).double()
    found = edge_regression(x, bands, steps=200)
    torch.testing.assert_close(curve_regression(found, bands), found, atol=1e-5, rtol=0)
    best = haar_details(x - found).abs().sum()
    for k in range(200):
        step = 10.0 ** (-2 - k % 3) * torch.einsum("s,shw->hw", rand(len(bands), seed=k), bands)
        assert haar_details(x - found - step).abs().sum() > best * (1 - 1e-5)


def test_constant_pictures_are_refused():
    flat = torch.full((1, 12, 12), 0.5)
    with pytest.raises(ValueError, match="constant"):
        visible_bands(flat)
    with pytest.raises(ValueError, match="at least 2"):
        visible_bands(torch.rand(1, 12, 12), knots=1)
