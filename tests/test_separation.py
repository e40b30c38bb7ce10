"""Separating two layers: descent, what a round may move, the recorded tables."""

import json

import pytest
import torch
from separation_cases import W, unsolved

from benchmarks import xray
from tutorial_lib.data.xray import mixture, xray_pairs
from tutorial_lib.metrics import separation_scores
from tutorial_lib.regression import (
    curve_regression,
    visible_bands,
)
from tutorial_lib.separation import one_round, separate
from tutorial_lib.separation_model import (
    Weights,
)

problem = pytest.fixture(unsolved)


def gray(picture):
    return torch.einsum("c,chw->hw", torch.tensor([0.299, 0.587, 0.114]), picture)[None]


# Descent ------------------------------------------------------------------------------------------


def test_the_objective_never_rises():
    _, visible, hidden = xray_pairs(size=32, bundled=True)[0]
    mix = mixture(visible, hidden, ratio=0.5)
    bands = visible_bands(gray(visible), knots=8).double()
    result = separate(mix.xray.double(), bands, rounds=25)
    total = result.history.sum(1)
    assert bool((total[1:] <= total[:-1] * (1 + 1e-9)).all())
    assert total[-1] < total[0]
    torch.testing.assert_close(result.x1 + result.x2, mix.xray.double())


def test_a_round_only_moves_what_it_may(problem):
    x, bands, s = problem
    same, _ = one_round(x, bands, s, W, duals=[None, None], link=3, learn=False)
    assert same.theta is s.theta
    assert same.psi is s.psi
    free, _ = one_round(x, bands, s, W._replace(gamma=0.0), duals=[None, None], link=3, learn=True)
    assert free.phi is s.phi
    assert not torch.equal(free.theta, s.theta)


# The link to the visible picture ------------------------------------------------------------------


def test_misfits_are_refused():
    bands = visible_bands(torch.rand(1, 12, 12), knots=4)
    with pytest.raises(ValueError, match=r"\(12, 13\).*\(12, 12\)"):
        separate(torch.rand(12, 13), bands)
    with pytest.raises(ValueError, match="constant, or holds NaN"):
        separate(torch.full((12, 12), torch.nan), bands)
    for name, value in (("rounds", 0), ("link", 2), ("weights", Weights(mu=-1.0))):
        with pytest.raises(ValueError, match=r"link = .* mu=.*expected"):
            separate(torch.rand(12, 12), bands, **{name: value})


# The whole ----------------------------------------------------------------------------------------


def test_the_model_comes_nearer_than_its_start_and_exclusion_helps():
    _, visible, hidden = xray_pairs(size=64, bundled=True)[0]
    mix = mixture(visible, hidden, ratio=0.5)
    bands = visible_bands(gray(visible))
    first = curve_regression(mix.xray, bands)
    full = separate(mix.xray, bands, rounds=25)
    without = separate(mix.xray, bands, weights=Weights(mu=0.0), rounds=25)
    first, without, full = (
        separation_scores(x1, mix.xray - x1, mix.surface, mix.hidden)["mse_free"]
        for x1 in (first, without.x1, full.x1)
    )
    assert full < 0.9 * without < 0.9 * first


def test_scores_forgive_a_constant_and_count_the_error_once():
    mix = mixture(torch.rand(3, 16, 16), torch.rand(3, 16, 16), ratio=0.5)
    shifted = separation_scores(mix.surface + 0.1, mix.hidden - 0.1, mix.surface, mix.hidden)
    assert shifted["mse"] == pytest.approx(0.01, rel=1e-4)
    assert shifted["mse_free"] < 1e-10
    assert shifted["ssim1"] == pytest.approx(1) == shifted["ssim2"]
    with pytest.raises(ValueError, match="different sums, by up to 0.1"):
        separation_scores(mix.surface + 0.1, mix.hidden, mix.surface, mix.hidden)


# The tables of the chapter ------------------------------------------------------------------------


def test_the_recorded_tables_are_what_the_package_computes():
    record = json.loads(xray.FILE.read_text())
    assert {part: len(rows) for part, rows in record.items()} == dict.fromkeys(record, 12)
    mix = xray.mixtures(256)["coffee over astronaut, 0.5"]
    row = record["methods"]["coffee over astronaut, 0.5"]
    for name, x1 in xray.regressions(mix).items():
        assert xray.scores(mix, x1) == pytest.approx(row[name], rel=0.02, abs=2e-4)
    small = xray.mixtures(96)["coffee over astronaut, 0.5"]
    row = record["ablation"]["coffee over astronaut, 0.5"]["filters not learned"]
    assert xray.scores(small, xray.model(small, learn=False)) == pytest.approx(row, rel=0.02)


def test_each_entry_of_the_ablation_is_another_model(monkeypatch):
    monkeypatch.setattr(xray, "ROUNDS", 5)
    _, visible, hidden = xray_pairs(size=32, bundled=True)[0]
    mix = mixture(visible, hidden, ratio=0.5)
    errors = {name: xray.scores(mix, x1(mix))[0] for name, x1 in xray.ABLATION.items()}
    assert len(set(errors.values())) == len(errors) == 9
