"""Flows: exact inverses, log-determinants against the autograd Jacobian, densities."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from tutorial_lib.lifting import lift
from tutorial_lib.networks.flow import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Flow,
    Glow,
    Haar,
    Invertible1x1,
    Squeeze,
    bits_per_dim,
    initialise,
    log_prob,
    real_nvp,
)


def conv(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 3, padding=1)


VECTORS = {
    "additive": lambda: AdditiveCoupling(
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    ),
    "additive, swapped": lambda: AdditiveCoupling(nn.Linear(2, 2), swap=True),
    "affine": lambda: AffineCoupling(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))),
    "affine, swapped": lambda: AffineCoupling(nn.Linear(2, 4), swap=True),
    "actnorm": lambda: ActNorm(4),
    "1x1": lambda: Invertible1x1(4),
    "real_nvp": lambda: real_nvp(4, layers=3, width=8),
}
IMAGES = {
    "additive": lambda: AdditiveCoupling(conv(1, 1)),
    "affine": lambda: AffineCoupling(conv(1, 2), swap=True),
    "actnorm": lambda: ActNorm(2),
    "1x1": lambda: Invertible1x1(2),
    "squeeze": Squeeze,
    "haar": Haar,
    "glow, squeeze": lambda: Glow((2, 4, 4), levels=2, steps=2, width=4, split="squeeze"),
    "glow, haar": lambda: Glow((2, 4, 4), levels=2, steps=2, width=4, split="haar"),
}
CASES = {
    **{f"vectors: {name}": (make, (4,)) for name, make in VECTORS.items()},
    **{f"images: {name}": (make, (2, 4, 4)) for name, make in IMAGES.items()},
}


def generic(make, dtype=torch.float64):
    """The bijection away from its starting point, where some of it is the identity."""
    torch.manual_seed(0)
    flow = make().to(dtype)
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.2 * torch.randn_like(p)
    return flow


def points(n, shape, dtype=torch.float64, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=draw, dtype=torch.float64).to(dtype)


each_case = pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES.keys())


@each_case
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_inverse(make, shape, dtype, atol):
    flow, x = generic(make, dtype), points(5, shape, dtype)
    z, log_det = flow(x)
    assert z.dtype == log_det.dtype == dtype
    assert torch.allclose(flow.inverse(z), x, atol=atol, rtol=0)
    back = flow(flow.inverse(z))[0]
    assert torch.allclose(back, z, atol=10 * atol, rtol=0)


@each_case
def test_log_det_is_that_of_the_jacobian(make, shape):
    flow, x = generic(make), points(3, shape)
    log_det = flow(x)[1]
    for i in range(3):
        J = jacobian(lambda one: flow(one[None])[0].flatten(), x[i])
        expected = torch.linalg.slogdet(J.flatten(1))[1]
        assert torch.isclose(log_det[i], expected, atol=1e-10)


@each_case
def test_a_sample_alone_is_the_sample_in_its_batch(make, shape):
    flow, x = generic(make), points(4, shape)
    z, log_det = flow(x)
    z_one, log_det_one = flow(x[2:3])
    assert torch.allclose(z_one, z[2:3], atol=1e-12)
    assert torch.allclose(log_det_one, log_det[2:3], atol=1e-12)


@each_case
def test_gradients_reach_every_parameter(make, shape):
    flow = generic(make)
    if not list(flow.parameters()):
        return
    log_prob(flow, points(4, shape)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())


def test_density_integrates_to_one():
    flow = generic(lambda: real_nvp(2, layers=4, width=16, bound=0.5))
    n, extent = 400, 20.0
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 * extent / n - extent
    total = log_prob(flow, torch.cartesian_prod(axis, axis)).exp().sum() * (2 * extent / n) ** 2
    assert abs(total - 1) < 1e-3


def test_an_additive_coupling_is_a_lifting_step():
    predict, update = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    flow = Flow(AdditiveCoupling(lambda c: -predict(c)), AdditiveCoupling(update, swap=True))
    x = points(3, (4,))
    coarse, detail = lift(*x.chunk(2, 1), [(predict, update)])
    assert torch.equal(flow(x)[0], torch.cat([coarse, detail], 1))


def test_affine_scales_are_bounded():
    flow = AffineCoupling(lambda a: torch.cat([1e3 * a, a], 1), bound=0.5)
    log_det = flow(points(100, (2,)))[1]
    assert log_det.abs().max() <= 0.5 and log_det.max() > 0.4


def test_initialise_normalises_every_actnorm():
    flow = Flow(ActNorm(2), Invertible1x1(2), ActNorm(2))
    x = 5 + points(64, (2, 4, 4), torch.float32) * torch.tensor([0.1, 30.0])[:, None, None]
    assert initialise(flow, x) is flow
    for stop in (1, 3):
        z = flow[:stop](x)[0].transpose(0, 1).flatten(1)
        assert torch.allclose(z.mean(1), torch.zeros(2), atol=1e-4)
        assert torch.allclose(z.std(1), torch.ones(2), atol=1e-4)
    before = flow[0].mean.clone()
    flow(x + 1)  # only initialise sets it
    assert torch.equal(flow[0].mean, before)


def test_initialise_survives_a_constant_channel():
    flow = initialise(ActNorm(2), torch.ones(8, 2))
    assert flow.log_scale.isfinite().all()


def test_invertible_convolution_starts_as_a_rotation():
    layer = Invertible1x1(6)
    L, U = layer.factors()
    W = layer.P @ L @ U
    assert torch.allclose(W @ W.mT, torch.eye(6), atol=1e-5)


def test_couplings_start_as_the_identity():
    x = points(3, (4,), torch.float32)
    z, log_det = real_nvp(4, layers=4, width=8)(x)
    assert torch.equal(z, x) and not log_det.any()


def test_squeeze_orders_pixels_and_haar_bands():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert Squeeze()(x)[0].flatten().tolist() == [1, 2, 3, 4]
    aa, ad, da, dd = Haar()(x)[0].flatten().tolist()
    assert (aa, dd) == pytest.approx((5, 0), abs=1e-6)
    assert (abs(ad), abs(da)) == pytest.approx((1, 2), abs=1e-6)
    two = torch.cat([x, 10 * x], 1)  # channels of a band stay together
    assert Squeeze()(two)[0].flatten().tolist() == [1, 10, 2, 20, 3, 30, 4, 40]
    assert torch.allclose(Haar()(two)[0][0, 1::2], 10 * Haar()(two)[0][0, ::2])


def test_haar_keeps_lengths_and_the_split_has_an_effect():
    x = points(2, (3, 8, 8))
    assert torch.allclose(Haar()(x)[0].square().sum(), x.square().sum())
    torch.manual_seed(0)
    haar = Glow((1, 4, 4), levels=1, steps=1, width=4, split="haar")
    squeeze = Glow((1, 4, 4), levels=1, steps=1, width=4, split="squeeze")
    squeeze.load_state_dict(haar.state_dict())
    x = points(2, (1, 4, 4), torch.float32)
    assert not torch.allclose(haar(x)[0], squeeze(x)[0], atol=1e-2)


def test_bits_of_a_standard_normal():
    levels = torch.full((2, 1, 1, 1), 51)
    u = torch.rand(2, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    x = ((levels + u) / 256).flatten()
    expected = 8 + (x.square() / 2 + math.log(2 * math.pi) / 2) / math.log(2)
    assert torch.allclose(bits_per_dim(Flow(), levels, seed=3), expected)


def test_a_scale_of_two_saves_one_bit_but_for_the_energy():
    """x -> 2 (x + 1): log_det is worth one bit a dimension, the prior sees another z."""
    shape, levels = (1, 4, 4), torch.randint(0, 256, (3, 1, 4, 4))
    flow = ActNorm(1)
    plain = bits_per_dim(flow, levels)
    with torch.no_grad():
        flow.mean.fill_(-1.0)
        flow.log_scale.fill_(math.log(2.0))
    z = 2 * ((levels + torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))) / 256 + 1)
    energy = (z.square() - (z / 2 - 1).square()).flatten(1).mean(1) / 2 / math.log(2)
    assert torch.allclose(bits_per_dim(flow, levels), plain + energy - 1, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: real_nvp(3), "even number of channels, got 3"),
        (lambda: AdditiveCoupling(nn.Identity())(torch.ones(1, 3)), "channels, got 3"),
        (lambda: AffineCoupling(nn.Identity(), bound=0.0), "bound must be positive, got 0.0"),
        (lambda: ActNorm(2)(torch.ones(1, 3)), r"made for 2 channels, got .*\(1, 3\)"),
        (lambda: Invertible1x1(2).inverse(torch.ones(1, 4)), "made for 2 channels"),
        (lambda: Squeeze()(torch.ones(1, 1, 3, 4)), r"must be even, got .*\(1, 1, 3, 4\)"),
        (lambda: Haar()(torch.ones(1, 1, 4, 5)), r"must be even, got .*\(1, 1, 4, 5\)"),
        (lambda: Squeeze().inverse(torch.ones(1, 6, 2, 2)), "multiple of 4, got 6"),
        (lambda: Haar().inverse(torch.ones(1, 6, 2, 2)), "multiple of 4, got 6"),
        (lambda: Glow((1, 12, 8), levels=3), "12 x 8 pixels cannot be halved 3 times"),
        (
            lambda: Glow((1, 4, 4), levels=1)(torch.ones(1, 1, 8, 8)),
            r"\('b', 1, 4, 4\), got \(1, 1, 8, 8\)",
        ),
        (lambda: Glow((1, 4, 4), levels=1).inverse(torch.ones(1, 8)), "16 numbers, got 8"),
        (lambda: bits_per_dim(Flow(), torch.full((1, 1, 2, 2), 256)), "0 ... 255, got 256"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
