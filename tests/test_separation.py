"""The separation model: the frame, every update against autograd, descent, exact proximal maps."""

import json

import pytest
import torch
from torch.nn.functional import conv2d

from benchmarks import xray
from tutorial_lib.data.xray import gray_response, mixture, xray_pairs
from tutorial_lib.exclusion import (
    haar_details,
    haar_details_adjoint,
    haar_frame,
    haar_synthesis,
    prox_exclusion,
)
from tutorial_lib.metrics import separation_scores
from tutorial_lib.regression import (
    curve_regression,
    edge_regression,
    linear_regression,
    standard_bands,
    visible_bands,
)
from tutorial_lib.separation import (
    State,
    Weights,
    convolve,
    correlate,
    gain,
    layer_gradient,
    layer_lipschitz,
    one_round,
    separate,
    synthesis,
    terms,
    update_codes,
    update_layer,
    update_phi,
    update_psi,
    update_theta,
)

W = Weights(gamma=0.7, tau1=0.3, tau2=0.4, lam1=0.05, lam2=0.06, mu=0.5)


def rand(*shape, seed=0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=g, dtype=torch.float64)


@pytest.fixture
def problem():
    """x, bands and a state in which nothing is at its optimum."""
    state = State(
        rand(16, 18, seed=1),
        rand(16, 18, seed=2),
        rand(4, 16, 18, seed=3),
        rand(4, 16, 18, seed=4),
        rand(4, 3, 3, seed=5) / 4,
        rand(1, 5, 5, seed=6) / 8,
        rand(3, 3, 3, seed=7) / 3,
    )
    return rand(16, 18), rand(3, 16, 18), state


def squares(x, bands, state):
    return terms(x, bands, state, W)[:4].sum()


# The frame and the convolutions -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (2, 3, 9, 4)])
def test_the_haar_frame_is_parseval_up_to_the_borders(shape):
    y = rand(*shape)
    bands = haar_frame(y)
    torch.testing.assert_close(haar_synthesis(bands), y, atol=1e-14, rtol=0)
    torch.testing.assert_close(bands.square().sum(), y.square().sum())
    b = rand(*bands.shape)
    torch.testing.assert_close((bands * b).sum(), (y * haar_synthesis(b)).sum())


def test_the_bands_are_differences_of_four_pixels():
    y = rand(6, 7)
    a, b, c, d = y[2, 3], y[2, 4], y[3, 3], y[3, 4]
    expected = torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d]) / 4
    torch.testing.assert_close(haar_frame(y)[:, 2, 3], expected)


def test_the_details_see_no_constant_and_no_seam():
    ramp = torch.arange(6.0, dtype=torch.float64).expand(5, 6)
    details = haar_details(ramp)
    assert details[1, :-1, :-1].unique().tolist() == [-0.5]
    assert not details[[0, 2]].any()
    assert not details[:, -1].any()
    assert not details[:, :, -1].any()
    assert not haar_details(torch.full((4, 4), 0.3, dtype=torch.float64)).any()


def test_the_adjoints():
    y, w = rand(2, 5, 7), rand(2, 3, 5, 7)
    torch.testing.assert_close((haar_details(y) * w).sum(), (y * haar_details_adjoint(w)).sum())
    k, a, b = rand(4, 3, 3), rand(4, 8, 9), rand(4, 8, 9, seed=9)
    torch.testing.assert_close((convolve(k, a) * b).sum(), (a * correlate(k, b)).sum())
    torch.testing.assert_close(convolve(k, a).sum(0), synthesis(k, a))
    e = rand(8, 9)
    torch.testing.assert_close((synthesis(k, a) * e).sum(), (a * correlate(k, e[None])).sum())


def test_convolution_by_hand_and_its_norm():
    k, a = rand(1, 3, 3), rand(1, 6, 6)
    padded = torch.nn.functional.pad(a[None], (1, 1, 1, 1), mode="circular")
    torch.testing.assert_close(convolve(k, a)[None], conv2d(padded, k.flip(-2, -1)[None]))
    one = torch.zeros(1, 6, 6, dtype=torch.float64)
    one[0, 2, 3] = 1
    torch.testing.assert_close(convolve(k, one)[0, 1:4, 2:5], k[0])
    basis = torch.eye(36, dtype=torch.float64).reshape(36, 1, 6, 6)
    matrix = torch.stack([convolve(k, e)[0].flatten() for e in basis], 1)
    torch.testing.assert_close(torch.linalg.matrix_norm(matrix, 2) ** 2, gain(k, (6, 6)))


# The objective and its gradients ------------------------------------------------------------------


def test_the_objective_is_the_published_one(problem):
    x, bands, s = problem
    got = terms(x, bands, s, W)
    link = sum(
        (r - convolve(f[None], s.y1[None])[0]).square().sum()
        for r, f in zip(bands, s.phi, strict=True)
    )
    product = haar_frame(s.y1)[1:, :-1, :-1] * haar_frame(s.y2)[1:, :-1, :-1]
    expected = [
        (x - convolve(s.psi, s.y1[None])[0] - convolve(s.psi, s.y2[None])[0]).square().sum(),
        0.7 * link,
        0.3 * (s.y1 - convolve(s.theta, s.z1).sum(0)).square().sum(),
        0.4 * (s.y2 - convolve(s.theta, s.z2).sum(0)).square().sum(),
        0.05 * s.z1.abs().sum(),
        0.06 * s.z2.abs().sum(),
        0.5 * product.abs().sum(),
    ]
    torch.testing.assert_close(got, torch.stack(expected))


@pytest.mark.parametrize("which", [1, 2])
def test_the_gradient_of_a_layer_is_autograds(problem, which):
    x, bands, s = problem
    name = f"y{which}"
    y = getattr(s, name).clone().requires_grad_()
    squares(x, bands, s._replace(**{name: y})).backward()
    torch.testing.assert_close(layer_gradient(which, x, bands, s, W), y.grad, atol=1e-8, rtol=0)


@pytest.mark.parametrize("which", [1, 2])
def test_the_lipschitz_constant_of_a_layer_bounds_its_hessian(problem, which):
    x, bands, s = problem
    name, y = f"y{which}", getattr(s, f"y{which}")
    d = rand(16, 18, seed=20)
    for _ in range(200):  # power iteration on the constant Hessian
        there = layer_gradient(which, x, bands, s._replace(**{name: y + d}), W)
        d = there - layer_gradient(which, x, bands, s, W)
        largest, d = d.norm(), d / d.norm()
    L = layer_lipschitz(which, s, W)
    assert 0.5 * L < largest <= L * (1 + 1e-12)


def test_the_code_update_is_a_soft_threshold_of_autograds_gradient(problem):
    x, bands, s = problem
    z = s.z1.clone().requires_grad_()
    squares(x, bands, s._replace(z1=z)).backward()
    L = 2 * W.tau1 * gain(s.theta, (16, 18))
    v = s.z1 - z.grad / L
    expected = v.sign() * (v.abs() - W.lam1 / L).clamp(min=0)
    got = update_codes(s.z1, s.y1, s.theta, tau=W.tau1, lam=W.lam1)
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=0)


def test_phi_is_the_least_squares_filter(problem):
    x, bands, s = problem
    phi = update_phi(s.y1, bands, size=3).requires_grad_()
    gradient = torch.autograd.grad(squares(x, bands, s._replace(phi=phi)), phi)[0]
    assert gradient.abs().max() < 1e-8


def test_theta_and_psi_step_along_autograds_gradient(problem):
    x, bands, s = problem
    theta, psi = s.theta.clone().requires_grad_(), s.psi.clone().requires_grad_()
    squares(x, bands, s._replace(theta=theta, psi=psi)).backward()
    L = 2 * W.tau1 * gain(s.z1, (16, 18)) + 2 * W.tau2 * gain(s.z2, (16, 18))
    v = s.theta - theta.grad / L
    expected = v / v.flatten(1).norm(dim=1).clamp(min=1)[:, None, None]
    torch.testing.assert_close(update_theta(s, W), expected, atol=1e-8, rtol=0)
    v = s.psi - psi.grad / (2 * gain((s.y1 + s.y2)[None], (16, 18)))
    torch.testing.assert_close(update_psi(x, s), v / v.norm().clamp(min=1), atol=1e-8, rtol=0)


def test_filters_stay_in_the_unit_ball(problem):
    x, _, s = problem
    large = s._replace(theta=10 * s.theta, psi=20 * s.psi, y1=s.y1 / 50, y2=s.y2 / 50)
    assert update_theta(large, W).flatten(1).norm(dim=1).max() <= 1 + 1e-12
    assert update_psi(x, large).norm() <= 1 + 1e-12


# The exclusion term -------------------------------------------------------------------------------


def cost(y, v, weight):
    return (y - v).square().sum() / 2 + (weight * haar_details(y)).abs().sum()


def test_the_prox_of_the_exclusion_term_is_its_argmin():
    v, weight = rand(12, 11), 0.4 * rand(3, 12, 11).abs()
    y, u, gap = prox_exclusion(v, weight, steps=4000)
    best = cost(y, v, weight)
    assert 0 <= gap < 1e-8 * best
    assert bool((u.abs() <= weight).all())
    dual = (v.square().sum() - (v - haar_details_adjoint(u)).square().sum()) / 2
    torch.testing.assert_close(best - dual, gap, atol=1e-9, rtol=0)
    for k in range(200):
        neighbour = y + 10.0 ** (-1 - k % 4) * rand(12, 11, seed=k)
        assert cost(neighbour, v, weight) >= best


def test_thresholding_in_the_redundant_frame_is_not_the_prox():
    v, weight = rand(32, 32), 0.4 * rand(3, 32, 32).abs()
    weight[:, -1] = weight[:, :, -1] = 0  # where `haar_details` is zero anyhow
    y, _, _ = prox_exclusion(v, weight, steps=2000)
    bands = haar_frame(v)
    shrunk = bands[1:] - bands[1:].clamp(-weight, weight)
    naive = haar_synthesis(torch.cat([bands[:1], shrunk]))
    assert cost(naive, v, weight) > 1.001 * cost(y, v, weight)
    assert (naive - y).norm() > 0.05 * y.norm()


def test_in_an_orthonormal_frame_it_would_be():
    v, weight = rand(8, 8), rand(4, 4, 4).abs()
    weight[0] = 0
    bands = 2 * haar_frame(v)[:, ::2, ::2]  # every second pixel: the orthonormal transform
    shrunk = bands - bands.clamp(-weight, weight)
    full = torch.zeros(4, 8, 8, dtype=torch.float64)
    full[:, ::2, ::2] = shrunk
    y = 2 * haar_synthesis(full)

    def value(u):
        return (u - v).square().sum() / 2 + (weight * 2 * haar_frame(u)[:, ::2, ::2]).abs().sum()

    best = value(y)
    torch.testing.assert_close(2 * haar_frame(y)[:, ::2, ::2], shrunk)
    for k in range(100):
        assert value(y + 10.0 ** (-1 - k % 4) * rand(8, 8, seed=k)) >= best


def test_the_prox_of_a_batch_and_its_limits():
    v, weight = rand(2, 6, 6), rand(2, 3, 6, 6).abs()
    both = prox_exclusion(v, weight)[0]
    torch.testing.assert_close(both[1], prox_exclusion(v[1], weight[1])[0])
    torch.testing.assert_close(prox_exclusion(v, 0 * weight)[0], v)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        prox_exclusion(v, 0 * weight - 1)


@pytest.mark.parametrize("block", ["y1", "y2", "z1", "z2"])
def test_each_proximal_step_is_the_argmin_of_its_majoriser(problem, block):
    x, bands, s = problem
    old = getattr(s, block)
    point = old.clone().requires_grad_()
    squares(x, bands, s._replace(**{block: point})).backward()
    which, theta = int(block[1]), s.theta
    if block[0] == "y":
        L = layer_lipschitz(which, s, W)
        new, _ = update_layer(which, x, bands, s, W, steps=3000)
    else:
        tau, lam = ((W.tau1, W.lam1), (W.tau2, W.lam2))[which - 1]
        L = 2 * tau * gain(theta, (16, 18))
        new = update_codes(old, getattr(s, f"y{which}"), theta, tau=tau, lam=lam)

    def majoriser(u):
        change = u - old
        return (
            (point.grad * change).sum()
            + L / 2 * change.square().sum()
            + terms(x, bands, s._replace(**{block: u}), W)[4:].sum()
        )

    best = majoriser(new)
    assert best < majoriser(old)
    for k in range(100):
        neighbour = new + 10.0 ** (-1 - k % 4) * rand(*old.shape, seed=k)
        assert majoriser(neighbour) >= best - 1e-9


# Descent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["z1", "z2", "y1", "y2", "phi", "theta", "psi"])
def test_each_block_lowers_the_objective(problem, block):
    x, bands, s = problem
    s = s._replace(psi=s.psi / s.psi.norm())
    new = {
        "z1": lambda: update_codes(s.z1, s.y1, s.theta, tau=W.tau1, lam=W.lam1),
        "z2": lambda: update_codes(s.z2, s.y2, s.theta, tau=W.tau2, lam=W.lam2),
        "y1": lambda: update_layer(1, x, bands, s, W)[0],
        "y2": lambda: update_layer(2, x, bands, s, W)[0],
        "phi": lambda: update_phi(s.y1, bands, size=3),
        "theta": lambda: update_theta(s, W),
        "psi": lambda: update_psi(x, s),
    }[block]()
    before, after = (terms(x, bands, t, W).sum() for t in (s, s._replace(**{block: new})))
    assert after < before * (1 - 1e-6)


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


def test_constant_pictures_and_misfits_are_refused():
    flat = torch.full((1, 12, 12), 0.5)
    with pytest.raises(ValueError, match="constant"):
        visible_bands(flat)
    with pytest.raises(ValueError, match="at least 2"):
        visible_bands(torch.rand(1, 12, 12), knots=1)
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
