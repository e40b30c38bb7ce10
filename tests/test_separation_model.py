"""The separation model: its objective, every gradient against autograd, every update."""

import pytest
import torch
from separation_cases import W, rand, unsolved
from torch.nn.functional import conv2d

from tutorial_lib.exclusion import haar_frame
from tutorial_lib.separation_model import (
    convolve,
    correlate,
    gain,
    layer_gradient,
    layer_lipschitz,
    synthesis,
    terms,
    update_codes,
    update_layer,
    update_phi,
    update_psi,
    update_theta,
)

problem = pytest.fixture(unsolved)


def squares(x, bands, state):
    return terms(x, bands, state, W)[:4].sum()


# The frame and the convolutions -------------------------------------------------------------------


def test_the_adjoints():
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
