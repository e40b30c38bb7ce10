"""Attention in windows: what it mixes, what it leaves alone, and a norm that is continuous."""

import pytest
import torch

from tutorial_lib.networks.window_attention import WindowBlock


def block(**options):
    torch.manual_seed(0)
    made = WindowBlock(8, heads=2, window=4, gain=0.5, **options)
    torch.nn.init.normal_(made.bias)
    return made.requires_grad_(False)


MAPS = torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("moved", [False, True])
def test_a_position_is_heard_in_its_own_window_only(moved):
    made, other = block(moved=moved), MAPS.clone()
    other[0, 3, 5, 5] += 1
    heard = (made(other) - made(MAPS)).abs().sum((0, 1)) > 0
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[slice(2, 6) if moved else slice(4, 8), slice(2, 6) if moved else slice(4, 8)] = True
    assert torch.equal(heard, expected)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (5, 9), (1, 3)])
def test_any_size_is_zero_beyond_the_border(moved, shape):
    made, h, w = block(moved=moved), *shape
    x = MAPS[..., :h, :w]
    larger = torch.zeros(1, 8, 12, 12)
    larger[..., :h, :w] = x
    assert torch.allclose(made(x), made(larger)[..., :h, :w], atol=1e-5)


def test_weights_are_shares_and_the_output_is_their_mean_of_values():
    made = block()
    x = MAPS.flatten(2).mT[:, :16]
    out, share = made.attention(x)
    assert share.shape == (1, 2, 16, 16) and torch.allclose(share.sum(-1), torch.ones(1, 2, 16))
    v = made.qkv(x)[..., 16:].view(1, 16, 2, 4)
    mean = torch.einsum("nhpq,nqhd->nphd", share, v).flatten(2)
    assert torch.allclose(out, made.out(mean), atol=1e-6)


def test_the_bias_depends_on_the_difference_of_two_positions():
    made = block()
    made.qkv.weight.zero_()
    made.qkv.bias.zero_()
    score = made.attention(torch.zeros(1, 16, 8))[1].log()[0]
    relative = score - score[:, :, :1]  # the softmax takes a constant away
    bias = made.bias[:, made.pairs]
    assert torch.allclose(relative, bias - bias[:, :, :1], atol=1e-5)
    assert made.pairs[0, 1] == made.pairs[5, 6] != made.pairs[1, 0]


def test_without_the_bias_positions_can_change_places():
    made = block()
    made.bias.zero_()
    x, order = MAPS.flatten(2).mT[:, :16], torch.randperm(16)
    assert torch.allclose(made.attention(x[:, order])[0], made.attention(x)[0][:, order], atol=1e-6)


def test_gains_of_zero_leave_the_maps_alone():
    made = block()
    made.gains.zero_()
    assert torch.equal(made(MAPS), MAPS)


@pytest.mark.parametrize("eps", [1.0, 1e-2, 1e-4])
def test_the_norm_has_a_slope_of_at_most_one_over_root_eps(eps):
    normal = block(eps=eps).normal
    u = torch.randn(200, 8) * torch.logspace(-4, 1, 200)[:, None]
    step = 1e-3 * torch.randn(200, 8)
    slope = (normal(u + step) - normal(u)).norm(dim=1) / step.norm(dim=1)
    assert slope.max() <= eps**-0.5 * 1.01
    assert normal(1e-3 * torch.randn(50, 8)).abs().max() < 4e-3 * eps**-0.5


def test_heads_must_share_the_maps():
    with pytest.raises(ValueError, match="9 maps cannot be shared by 2 heads"):
        WindowBlock(9, heads=2)
