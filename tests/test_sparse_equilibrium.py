"""The learned equilibrium: its start, its formula, its gradients, the recorded networks."""

import itertools

import pytest
import torch
from contractions import randn

from tutorial_lib.data import add_noise, photographs
from tutorial_lib.fixed_points import Solver
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.sparse_equilibrium import SparseEquilibrium
from tutorial_lib.training import load_weights
from tutorial_lib.training.recipes import find


def test_the_learned_layer_starts_as_ista_for_its_own_objective():
    torch.manual_seed(0)
    net = SparseEquilibrium(3, mu=0.2).double()
    y = randn(2, 9, 8, seed=1)

    def objective(z):
        D = net.filters(net.D)
        fit = (y - torch.conv_transpose2d(z, D, padding=1)[:, 0]).square().sum() / 2
        T = torch.nn.functional.softplus(net.T)
        return fit + (T * z.abs()).sum() + 0.1 * z.square().sum()

    z, values = torch.zeros(2, 9, 9, 8).double(), []
    for _ in range(200):
        values.append(objective(z))
        z = net.step(z, y)
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    u, v = randn(2, 9, 9, 8, seed=2), randn(2, 9, 9, 8, seed=3)
    assert (net.step(u, y) - net.step(v, y)).norm() <= (u - v).norm() / 1.2 + 1e-12
    for move in range(10):
        assert objective(z + 1e-3 * randn(*z.shape, seed=move)) > objective(z)


def test_equation_7_is_the_forward_pass():
    net = SparseEquilibrium(3)
    y = torch.rand(2, 10, 12)
    z, info = net.codes(y, solver=Solver(rtol=1e-5))
    assert z.shape == (2, 9, 10, 12)
    assert info.converged.all()
    mean = y.mean((1, 2), keepdim=True)
    synthesis = torch.conv_transpose2d(z, net.filters(net.C), padding=1)[:, 0]
    assert torch.allclose(net(y, solver=Solver(rtol=1e-5)), mean + synthesis, atol=1e-6)
    moved = net(y + 0.25, solver=Solver(rtol=1e-5))
    assert torch.allclose(moved, mean + 0.25 + synthesis, atol=1e-4)
    one = net(y[1:], solver=Solver(rtol=1e-5))
    assert torch.allclose(one, (mean + synthesis)[1:], atol=1e-5)
    unrolled = SparseEquilibrium(3, unrolled=4)
    z = torch.zeros(2, 9, 10, 12)
    for _ in range(4):
        z = unrolled.step(z, y - mean)
    assert torch.allclose(unrolled(y), unrolled.restore(z, y))


def test_every_parameter_of_the_learned_layer_has_its_exact_gradient():
    torch.manual_seed(0)
    net = SparseEquilibrium(3, mu=0.3).double()
    y = torch.rand(1, 5, 5, dtype=torch.float64)
    names, values = zip(*net.named_parameters(), strict=True)
    solver = Solver(rtol=1e-13, max_steps=2000)

    def layer(*values):
        return torch.func.functional_call(
            net, dict(zip(names, values, strict=True)), (y,), {"solver": solver}
        )

    assert torch.autograd.gradcheck(layer, values)


@pytest.mark.parametrize("name", ["equilibrium_implicit", "equilibrium_unrolled"])
def test_the_recorded_networks_denoise_and_only_one_may_go_on(name):
    network = find(name).trained()
    record = load_weights(name)[1]
    assert record["parameters"] == sum(p.numel() for p in network.parameters()) == 1901
    x = photographs(size=96)[:4]
    y = add_noise(x, 25 / 255, seed=0)
    centred = y - y.mean((1, 2), keepdim=True)
    with torch.no_grad():
        z = network.codes(y).value
        level = psnr(network.restore(z, y), x).mean()
        assert level.item() == pytest.approx(record["scores"]["psnr"], abs=0.02)
        for _ in range(100):
            z = network.step(z, centred)
        drop = level - psnr(network.restore(z, y), x).mean()
    assert abs(drop) < 0.1 if name == "equilibrium_implicit" else drop > 2
