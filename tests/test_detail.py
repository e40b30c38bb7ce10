"""The detail enhancement: five convolutions in one kernel, and the gate."""

import torch
from torch.nn.functional import conv3d

from tutorial_lib.networks.detail import DetailEnhancement, DifferenceConv


def convolution(maps=4):
    torch.manual_seed(0)
    made = DifferenceConv(maps).double().requires_grad_(False)
    made.bias.normal_()
    return made


X = torch.randn(1, 4, 6, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_five_convolutions_are_one():
    made = convolution()
    parts = conv3d(X, made.plain, made.bias, padding=1) + conv3d(X, made.center, padding=1)
    parts -= conv3d(X, made.center.sum((2, 3, 4), keepdim=True))  # centre minus the sum
    for axis, weights in zip((2, 3, 4), made.sides, strict=True):
        flat = weights.unsqueeze(axis)  # 9 weights in a plane across the axis
        padding = [0 if a == axis else 1 for a in (2, 3, 4)]
        y = conv3d(X, flat, padding=padding)
        n = y.shape[axis]
        before = torch.cat([torch.zeros_like(y.narrow(axis, 0, 1)), y.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([y.narrow(axis, 1, n - 1), torch.zeros_like(y.narrow(axis, 0, 1))], axis)
        parts += before - after
    assert torch.allclose(made(X), parts, atol=1e-12)


def test_four_of_them_are_blind_to_constants():
    made = convolution()
    made.plain.zero_()
    assert torch.allclose(made.kernel().sum((2, 3, 4)), torch.zeros(4, 4).double(), atol=1e-12)
    inside = made(torch.full_like(X, 3.0))[..., 1:-1, 1:-1, 1:-1]
    assert torch.allclose(inside, made.bias.view(1, 4, 1, 1, 1).expand_as(inside))


def test_the_gate_only_weakens_what_has_been_enhanced():
    torch.manual_seed(0)
    made = DetailEnhancement(4).double().requires_grad_(False)
    r = X + made.differences(X.asinh()).relu()
    gate = made.spread(made.squeeze(r.asinh()).relu()).sigmoid()
    assert torch.allclose(made(X), r * gate)
    assert 0.9 < gate.min() and gate.max() < 1 and gate.std() > 0  # open at the start
    assert ((r - X) >= 0).all() and ((r - X) > 0).any()
