"""CU-Net: its size, its layers as convolutional ISTA, its parts, whole images."""

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

from tutorial_lib.data import bicubic, luma, motorcycle
from tutorial_lib.networks.cunet import CodeNet, CUNet, shrink
from tutorial_lib.training import load_weights, recipes, shipped
from tutorial_lib.training.evaluation import by_tiles
from tutorial_lib.training.recipes import cunet


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(**settings):
    torch.manual_seed(0)
    return CUNet(**{"filters": 6, "size": 3, "layers": 2} | settings)


def test_published_sizes():
    assert parameters(CUNet()) == 207_375
    assert parameters(CUNet(channels=3)) == 622_095
    assert parameters(CUNet(channels=3, fusion=True)) == 637_647
    assert parameters(CUNet(fusion=True)) == 207_375 + 64 * 81


def test_layers_are_convolutional_ista_where_the_filters_are_tied():
    """For 1/2 ||x - D t||^2 + lam ||t||_1: E = step D^T in each layer, thresholds step lam."""
    n, layers, step, lam = 5, 7, 0.002, 3.0
    net = CodeNet(2, n, 5, layers).double()
    D = random(2, n, 5, 5).double()
    with torch.no_grad():
        for E in net.encode:  # D^T correlates with the flipped filters, its axes exchanged
            E.copy_(step * D.flip(-1, -2).transpose(0, 1))
        for F in net.decode:
            F.copy_(D)
        net.theta.fill_(step * lam)
    x = random(1, 2, 12, 13, seed=1).double()
    t = torch.zeros(1, n, 12, 13, dtype=torch.float64)
    for _ in range(layers + 1):
        residual = conv2d(t, D, padding=2) - x
        v = t - step * conv_transpose2d(residual, D, padding=2)
        t = v - v.clamp(-step * lam, step * lam)
    torch.testing.assert_close(net(x).detach(), t)
    assert 0.1 < (t != 0).double().mean() < 0.9


def test_negative_thresholds_expand_and_positive_ones_cannot_be():
    v = torch.tensor([-1.0, 0.0, 0.5])
    torch.testing.assert_close(shrink(v, torch.tensor(-0.2)), torch.tensor([-1.2, 0.0, 0.7]))
    net = CodeNet(1, 2, 3, 1, positive=True)
    with torch.no_grad():
        net.theta.copy_(torch.tensor([-0.5, 0.07]))
    assert net.thresholds()[0] >= 0
    assert net.thresholds()[1].item() == pytest.approx(0.07, abs=1e-4)


@pytest.mark.parametrize("fusion", [False, True])
def test_the_result_is_the_sum_of_its_parts(fusion):
    net = small(fusion=fusion)
    x, y = random(2, 1, 20, 24), random(2, 1, 20, 24, seed=1)
    codes = net.codes(x, y)
    names = "uvc" if fusion else "uc"
    torch.testing.assert_close(net(x, y), sum(net.part(codes, n) for n in names))
    assert ("z_v" in net.filters) == fusion
    # u is blind to the guide, v to x, c to neither.
    other = net.codes(x, y + random(2, 1, 20, 24, seed=2))
    assert torch.equal(other.u, codes.u)
    assert not torch.equal(other.v, codes.v)
    assert not torch.equal(other.c, codes.c)


def test_common_codes_see_what_the_unique_ones_leave():
    net = small()
    x, y = random(1, 1, 16, 16), random(1, 1, 16, 16, seed=1)
    codes = net.codes(x, y)
    rest = [
        signal - conv2d(code, net.filters[key], padding=1)
        for signal, code, key in ((x, codes.u, "x_u"), (y, codes.v, "y_v"))
    ]
    torch.testing.assert_close(codes.c, net.code_c(torch.cat(rest, 1)))


def test_every_parameter_learns():
    net = small(fusion=True, positive=True)
    net(random(1, 1, 16, 16), random(1, 1, 16, 16, seed=1)).square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad.abs().max() > 0, name


def test_batch_of_one_and_double_precision():
    net = small()
    x, y = random(3, 1, 16, 18), random(3, 1, 16, 18, seed=1)
    torch.testing.assert_close(net(x, y)[1:2], net(x[1:2], y[1:2]))
    double = net.double()(x.double(), y.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), net.float()(x, y), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bad", [{"size": 4}, {"filters": 0}, {"layers": 0}])
def test_sizes_are_checked(bad):
    with pytest.raises(ValueError, match="at least 1, size . odd"):
        small(**bad)


# Whole images --------------------------------------------------------------------------------


def test_tiles_with_the_margin_of_the_reach_make_no_seam():
    """Each filter of 3 x 3 reaches one pixel farther, and there are 12 in a row."""
    net = small()
    x, y = random(40, 50, seed=3), random(40, 50, seed=4)
    pair = torch.stack([x, y])

    def run(tile):
        return net(tile[None, :1], tile[None, 1:])[0]

    with torch.no_grad():
        whole = run(pair)
        assert whole.shape == (1, 40, 50)
        torch.testing.assert_close(by_tiles(run, pair, size=16, margin=12), whole)
        assert not torch.allclose(by_tiles(run, pair, size=16, margin=2), whole)


def test_restored_images_move_with_their_mean():
    net = small()
    x, y = random(20, 24, seed=3), random(20, 24, seed=4)
    with torch.no_grad():
        z = cunet.restore(net, x, y)
        moved = cunet.restore(net, x + 0.25, y - 0.5)
    assert z.shape == (20, 24)
    torch.testing.assert_close(moved, z + 0.25, atol=1e-5, rtol=1e-4)


def test_training_batches_are_without_the_means_that_are_known_at_the_end():
    x, y, z = cunet.batch(torch.arange(5), kind="depth", size=24, bundled=True)
    assert x.shape == y.shape == z.shape == (5, 1, 24, 24)
    for t in (x, y):
        assert t.mean((1, 2, 3)).abs().max() < 1e-6
    assert z.mean((1, 2, 3)).abs().max() > 1e-6  # that of x was taken away


def test_the_loss_is_one_where_nothing_is_gained_over_bicubic_and_l1_counts_the_codes():
    net = small()
    with torch.no_grad():
        batch = cunet.batch(torch.arange(2), kind="nir", size=16, bundled=True)
        x, y, z = batch
        without, with_ = (cunet.loss(net, batch, 0, l1=w) for w in (0.0, 2.0))
        error = (net(x, y) - z).square().mean((1, 2, 3))
        missed = (x - z).square().mean((1, 2, 3))
        codes = net.codes(x, y)
    torch.testing.assert_close(without, (error / (missed + cunet.FLOOR)).mean())
    torch.testing.assert_close(with_ - without, 2 * sum(t.abs().mean() for t in codes))
    assert (missed > cunet.FLOOR).all()


SHIPPED = [name for name in shipped() if name in recipes.names() and name.startswith("cunet_")]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_those_of_their_recipe(name):
    module = recipes.find(name)
    network = module.trained()
    assert parameters(network) in (207_375, 212_559)
    assert load_weights(name)[1]["name"] == name


def test_tiles_of_the_trained_network_make_no_visible_seam():
    """Its filters reach 80 pixels, a margin of 48 is enough."""
    pair = motorcycle()
    z, y = pair.target[:96, :400], luma(pair.guide)[:96, :400]
    x, network = bicubic(z, scale=4), recipes.find("cunet_depth").trained()
    together = torch.stack([x - x.mean(), y - y.mean()])[:, None]
    with torch.no_grad():
        whole = network(together[:1], together[1:])[0, 0] + x.mean()
    tiled = cunet.restore(network, x, y).detach()
    assert 400 > cunet.TILE
    assert 255 * (tiled - whole).abs().max() < 2e-3
    error = [(v - z).square().mean() for v in (tiled, x)]
    assert error[0] < 0.6 * error[1]  # and it is better than bicubic


def test_the_error_that_chapter_14_prints_for_the_whole_motorcycle():
    pair = motorcycle()
    z, y = pair.target[:500, :740], luma(pair.guide)[:500, :740]
    network = recipes.find("cunet_depth").trained()
    error = cunet.restore(network, bicubic(z, scale=4), y).detach() - z
    assert abs(255 * error.square().mean().sqrt() - 5.911) < 0.01
