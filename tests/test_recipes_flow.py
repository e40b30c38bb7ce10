"""What the flows are trained on: densities of known entropy, dequantised patches."""

import math

import pytest
import torch

from tutorial_lib.networks.flow import Flow, bits_per_dim, log_prob
from tutorial_lib.training import load_weights
from tutorial_lib.training.recipes import flow2d, glow
from tutorial_lib.training.weights import fill

LAWS = {name: law() for name, law in flow2d.DENSITIES.items()}
SMALL = {"layers": 2, "width": 4, "batch_size": 8}
TINY = {"size": 8, "levels": 1, "flow_steps": 1, "width": 4, "batch_size": 4}
each_law = pytest.mark.parametrize("name", LAWS)


@each_law
def test_density_integrates_to_one(name):
    points, area = flow2d.grid(5.0, 500)
    assert (LAWS[name].log_prob(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-5)


@each_law
def test_samples_follow_the_density(name):
    """Their mean of -log p is the entropy, and moments agree with those on a grid."""
    law = LAWS[name]
    x = law.sample(200_000, torch.Generator().manual_seed(0)).double()
    assert -law.log_prob(x).mean().item() == pytest.approx(law.entropy, abs=0.01)
    points, area = flow2d.grid(5.0, 500)
    mass = law.log_prob(points).exp() * area
    for power in (lambda p: p[:, 0] * p[:, 1], lambda p: p.norm(dim=1), lambda p: p[:, 0] ** 4):
        expected = (mass * power(points)).sum().item()
        assert power(x).mean().item() == pytest.approx(expected, abs=0.02 * (1 + abs(expected)))


def test_entropy_of_the_pair_and_of_far_modes():
    assert LAWS["gaussian"].entropy == pytest.approx(
        math.log(2 * math.pi * math.e) + math.log(1 - 0.81) / 2
    )
    alone = math.log(2 * math.pi * math.e * 0.1**2)  # modes that do not meet: + log 8
    assert flow2d.eight(0.1).entropy == pytest.approx(alone + math.log(8), abs=1e-4)
    assert flow2d.eight(0.3).entropy < alone + math.log(8 * 9)


def test_flow2d_draws_by_index_and_scores_by_the_gap():
    recipe = flow2d.recipe(density="ring", **SMALL)
    index = torch.tensor([5, 2**20 + 3, 7])
    assert torch.equal(recipe.batch(index)[1:], recipe.batch(index[1:]))
    flow = recipe.network()
    assert recipe.loss(flow, recipe.batch(index), 0) == -log_prob(flow, recipe.batch(index)).mean()
    scores = recipe.validate(flow)
    assert list(scores) == ["log_likelihood", "gap"]
    assert scores["gap"] == pytest.approx(-scores["log_likelihood"] - LAWS["ring"].entropy)


def test_flow2d_refuses():
    with pytest.raises(ValueError, match="unknown density 'moons': known are gaussian, ring, eig"):
        flow2d.recipe(density="moons", **SMALL)


def test_glow_draws_by_index_in_eight_bits():
    recipe = glow.recipe(split="haar", **TINY)
    x = recipe.batch(torch.tensor([3, 11]))
    assert x.shape == (2, 1, 8, 8)
    assert torch.equal(recipe.batch(torch.tensor([11])), x[1:])
    u = 256 * x.double() - (256 * x.double()).floor()  # the dequantisation
    assert 0.3 < u.mean() < 0.7 and x.min() >= 0 and x.max() < 1


def test_glow_loss_is_bits_per_dimension():
    levels = torch.randint(0, 256, (2, 1, 8, 8))
    u = torch.rand(levels.shape, generator=torch.Generator().manual_seed(0))
    loss = glow.bits_loss(Flow(), (levels + u) / 256, 0)
    assert torch.isclose(loss, bits_per_dim(Flow(), levels).mean())


def test_tiles_lie_side_by_side():
    levels = torch.arange(256).view(8, 32)
    cut = glow.tiles(levels / 255, 8)
    assert cut.shape == (4, 1, 8, 8)
    assert torch.equal(cut[1, 0], levels[:, 8:16].to(torch.uint8))


@each_law
def test_shipped_flow_is_close_to_the_entropy(name):
    state, record = load_weights(f"flow2d_{name}")
    sizes = {key: record["config"][key] for key in ("layers", "width", "batch_size")}
    flow = flow2d.recipe(density=name, **sizes).network()
    fill(flow, state)
    x = LAWS[name].sample(100_000, torch.Generator().manual_seed(77))
    with torch.no_grad():
        nll = -log_prob(flow, x).mean().item()
    assert -0.02 < nll - LAWS[name].entropy < 0.05
