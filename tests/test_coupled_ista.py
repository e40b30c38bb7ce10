"""Coupled ISTA: steps of ISTA, its starts and their least squares, whole images, the recipes."""

import pytest
import torch

from tutorial_lib import operators, solvers
from tutorial_lib.data import bicubic, guided_patches, luma, motorcycle
from tutorial_lib.data.guided import bundled_pairs
from tutorial_lib.dictionary import average_patches, extract_patches
from tutorial_lib.multimodal import JointModel, predict_code
from tutorial_lib.networks import coupled_ista
from tutorial_lib.networks.coupled_ista import (
    CoupledISTA,
    best_threshold,
    branch,
    fit_linear,
    ista_start,
    loa_start,
    restore,
)
from tutorial_lib.networks.shrinkage import shrink
from tutorial_lib.training import recipes
from tutorial_lib.training.recipes import coupled_ista as recipe_module
from tutorial_lib.training.recipes.coupled_ista import cosine_frame

NAMES = ("depth", "alone", "x8", "x16", "nir", "single_nir", "spectral")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joint(p=16, m=24):
    D = [noise(p, m, seed=i) for i in range(3)]
    D = [d / d.norm(dim=0) for d in D]
    return JointModel(*D, 0.3 * noise(m, m, seed=3), 0.3 * noise(m, m, seed=4))


def toy(layers=3, **options):
    torch.manual_seed(0)
    return CoupledISTA(4, 24, layers, **options).double()


def patches(count=40, p=16):
    x, y, z = (noise(count, p, seed=i) for i in (7, 8, 9))
    return x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True), z


# The network -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "parameters"), [(8, 1_151_488), (12, 1_929_728), (16, 3_019_264)])
def test_published_sizes(size, parameters):
    assert sum(p.numel() for p in CoupledISTA(size).parameters()) == parameters


def test_thresholds_stay_in_32_bits_where_products_take_16():
    D, v = joint()[0].float(), noise(5, 16, seed=5).float()
    with torch.autocast("cpu", torch.bfloat16):
        codes = branch(v, D.mT, D[None], D.mT[None] / 4, torch.full((1, D.shape[1]), 0.2))
    assert codes[-1].dtype == torch.bfloat16


def test_a_branch_is_ista():
    D, v, lam = joint()[0], noise(5, 16, seed=5), 0.2
    t = 1 / torch.linalg.matrix_norm(D, 2).item() ** 2
    start, K = noise(5, 24, seed=6), 7
    codes = []
    solvers.ista(
        operators.matrix(D), v, lam, x0=start, step=t, max_steps=K, rtol=0.0,
        callback=lambda _, code: codes.append(code.clone()),
    )  # fmt: skip
    # A code to begin with is W v for some W: v has independent rows.
    W = torch.linalg.lstsq(v, start).solution.mT
    unrolled = branch(v, W, [D] * K, [t * D.mT] * K, [torch.full((24,), t * lam).double()] * K)
    assert len(unrolled) == K + 1
    for code, step in zip(unrolled[1:], codes[-K:], strict=True):
        assert torch.allclose(code, step, atol=1e-12)


def test_with_the_start_of_ista_the_network_is_the_coding_of_chapter_12():
    model, nu, threshold = joint(), 0.1, 0.05
    network = ista_start(toy(layers=4000), model, nu=nu, threshold=threshold)
    x, y, _ = patches(6)
    a, b, c = network.codes(x, y)
    for code, v, D in ((a[-1], x, model.D_x), (b[-1], y, model.D_y)):
        correlation = (v - code @ D.mT) @ D  # the conditions of a lasso's minimum
        assert correlation.abs().max() < nu * (1 + 1e-3)
        on = code.abs() > 1e-3
        assert torch.allclose(correlation[on], nu * code[on].sign(), atol=1e-3 * nu)
    assert torch.allclose(c, predict_code(model, a[-1], b[-1], threshold=threshold))
    assert torch.allclose(network(x + 0.3, y), c @ model.D_z.mT + 0.3)


def test_means():
    """The mean of x is passed on, that of y is forgotten."""
    network, (x, y, _) = toy(), patches(5)
    z = network(x, y)
    assert torch.allclose(network(x + 0.7, y - 0.4), z + 0.7)
    assert not torch.allclose(network(x, 2 * y), z)
    assert torch.allclose(network(x[0], y[0]), z[0])


def test_without_a_guide():
    network = toy(guided=False)
    x, y, _ = patches(5)
    assert torch.equal(network(x), network(x, y))
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {
        "x", "W_x", "log_threshold", "D_z",
    }  # fmt: skip
    assert network.codes(x)[1] == []


def test_every_parameter_learns():
    network, (x, y, z) = toy(threshold=0.01), patches()
    (network(x, y) - z).square().mean().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and bool(p.grad.any()), name


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: CoupledISTA(0), "size = 0"),
        (lambda: CoupledISTA(threshold=0.0), "threshold = 0.0"),
        (lambda: toy()(noise(2, 15), noise(2, 15)), "(2, 15)"),
        (lambda: toy()(noise(2, 16)), "y of shape None"),
        (lambda: restore(toy(), noise(9, 9), noise(9, 8)), "(9, 8)"),
        (lambda: restore(toy(), noise(9, 9), noise(9, 9), stride=5), "stride = 5"),
        (lambda: ista_start(toy(), joint(m=20), nu=0.1, threshold=0.1), "(16, 20)"),
        (lambda: ista_start(toy(), joint(), nu=0.0, threshold=0.1), "0.0"),
        (lambda: loa_start(toy(guided=False), joint(), patches(), patches()), "no guide"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError) as refusal:
        call()
    assert words in str(refusal.value)


# Whole images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4), (9, 13), (2, 3, 11, 10)])
def test_restore_averages_all_patches(shape, monkeypatch):
    network = toy()
    x, y = noise(*shape), noise(*shape, seed=1)
    each = network(extract_patches(x, size=4), extract_patches(y, size=4))
    expected = average_patches(each, shape[-2:])
    assert torch.allclose(restore(network, x, y), expected)
    monkeypatch.setattr(coupled_ista, "CHUNK", 1)  # strips of one row of patches
    assert torch.allclose(restore(network, x, y), expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (10, 2), (7, 9)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_restore_takes_any_size(shape, stride, monkeypatch):
    network = toy()
    with torch.no_grad():
        network.D_z.zero_()  # each patch becomes its mean
        x = torch.full(shape, 0.4).double()
        z = restore(network, x, noise(*shape), stride=stride)
        assert torch.allclose(z, x)
        u, y = noise(*shape), noise(*shape, seed=1)
        whole = restore(toy(), u, y, stride=stride)
        monkeypatch.setattr(coupled_ista, "CHUNK", 3)
        assert torch.allclose(restore(toy(), u, y, stride=stride), whole)


def test_restore_passes_gradients():
    network, x, y = toy(), noise(2, 8, 8), noise(2, 8, 8, seed=1)
    restore(network, x, y, stride=2).square().mean().backward()
    assert all(bool(p.grad.any()) for p in network.parameters())


# The layer-wise start ----------------------------------------------------------------------------


def test_fit_linear_is_the_minimiser():
    source, target, near = noise(30, 6), noise(30, 4, seed=1), noise(4, 6, seed=2)
    e = 2.5

    def value(M):
        return (target - source @ M.mT).square().sum() + e * (M - near).square().sum()

    M = fit_linear(source, target, near, e).requires_grad_()
    (gradient,) = torch.autograd.grad(value(M), M)
    assert gradient.abs().max() < 1e-10 * value(M)
    assert torch.allclose(fit_linear(source, target, near, 1e12), near, atol=1e-6)


def test_best_threshold_is_the_minimiser():
    v, target = noise(60, 8), noise(60, 8, seed=1)
    target = 0.5 * v + 0.4 * target
    target[:, 0], target[:, 1] = 0, -v[:, 1]  # nothing should pass
    target[:, 2] = v[:, 2]  # all of it should
    T = best_threshold(v, target)

    def error(T):
        return (target - shrink(v, T)).square().sum(0)

    for trial in torch.linspace(0, 4, 500, dtype=torch.float64):
        assert (error(T) <= error(trial.expand(8)) + 1e-9).all()
    assert T[2] == 1e-6 and not shrink(v, T)[:, :2].any()


def test_loa_is_layer_by_layer_optimal():
    model, signals = joint(), patches(200)
    codes = tuple(shrink(noise(200, 24, seed=i), torch.ones(24).double()) for i in (20, 21, 22))
    network = loa_start(toy(), model, signals, codes, ridge=1e-4)
    v, target = signals[0], codes[0]
    layers = network.x(v)
    T = network.x.log_thresholds.exp()
    errors, e = [], 1e-4 * v.square().sum(0).mean().item()
    for k, b in enumerate(layers[:-1]):
        D, P = network.x.D[k], network.x.P[k]
        residual = v - b @ D.mT
        assert torch.allclose(
            D, fit_linear(b, v, model.D_x, 1e-4 * b.square().sum(0).mean().item()), atol=1e-8
        )
        near = model.D_x.mT / torch.linalg.matrix_norm(model.D_x, 2) ** 2
        assert torch.allclose(P, fit_linear(residual, target - b, near, e), atol=1e-8)
        before = b + residual @ P.mT
        assert torch.allclose(T[k], best_threshold(before, target))
        errors.append((target - layers[k + 1]).square().sum().item())
    assert errors == sorted(errors, reverse=True)  # each layer comes nearer
    assert errors[0] < (target - layers[0]).square().sum().item()
    with torch.no_grad():
        c = network.codes(signals[0], signals[1])[2]
    e = 1e-4 * c.square().sum(0).mean().item()
    assert torch.allclose(network.D_z, fit_linear(c, signals[2], model.D_z, e), atol=1e-8)


# The recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "atoms"), [(8, 512), (16, 128)])
def test_the_first_dictionary_is_a_tight_frame(size, atoms):
    D = cosine_frame(size, atoms).double()
    r = min(size**2 - 1, atoms)
    gram = D @ D.mT * r / atoms  # the projection on r dimensions, without means
    assert torch.allclose(gram @ gram, gram, atol=1e-5)
    assert gram.trace().item() == pytest.approx(r, rel=1e-5)
    assert gram.sum(0).abs().max() < 1e-4


def settings(module):
    return {k: v for k, v in module.PROFILES["smoke"].items() if k != "steps"}


@pytest.mark.parametrize("name", NAMES)
def test_recipes_start_near_the_estimate(name):
    module = recipes.find(f"coupled_ista_{name}")
    recipe = module.recipe(**settings(module))
    network = recipe.network()
    x, y, z = recipe.batch(torch.arange(2))
    assert x.shape == y.shape == z.shape == (2, 5 * network.size // 2, 5 * network.size // 2)
    with torch.no_grad():
        change = restore(network, x, y) - x
    assert change.square().mean() < 0.05 * x.var()
    assert torch.isfinite(recipe.loss(network, (x, y, z), 0))
    assert recipe.validate(network)["psnr"] > 20


def test_batches_depend_on_the_number_alone():
    module = recipes.find("coupled_ista_depth")
    batch = module.recipe(**settings(module)).batch
    several, one = batch(torch.arange(3, 8)), batch(torch.tensor([5]))
    for a, b in zip(several, one, strict=True):
        assert torch.equal(a[2], b[0])
    any_crop = guided_patches(torch.arange(3, 8), **(batch.keywords | {"draws": 1}))
    strong, weak = ((x - z).square().mean() for x, _, z in (several, any_crop))
    assert strong > weak


@pytest.mark.parametrize("name", NAMES)
def test_shipped_networks_beat_bicubic_interpolation(name):
    """On pictures that come with the package, never trained on for depth."""
    module = recipes.find(f"coupled_ista_{name}")
    pair = bundled_pairs(name)[0] if name in ("nir", "single_nir", "spectral") else motorcycle()
    z = pair.target[128:256, 192:320]
    x, y = bicubic(z, scale=module.SCALE), luma(pair.guide)[128:256, 192:320]
    estimate = module.super_resolve(x, y)
    assert estimate.shape == z.shape and estimate.min() >= 0 and estimate.max() <= 1
    assert (estimate - z).square().mean() < (x - z).square().mean()
    odd = module.super_resolve(x[:5, :61], y[:5, :61])
    assert odd.shape == (5, 61)


def test_the_loss_weighs_each_crop_by_the_error_of_interpolation():
    """For a network that returns x a crop costs e / (e + FLOOR): flat crops next to nothing."""
    network = CoupledISTA(4, 8, 1, guided=False)
    with torch.no_grad():
        network.D_z.zero_()  # each patch becomes its mean
    z = torch.zeros(2, 10, 10)
    x = torch.stack([torch.full((10, 10), 0.1), torch.full((10, 10), 1e-4)])
    expected = [e / (e + recipe_module.FLOOR) for e in (1e-2, 1e-8)]
    loss = recipe_module.loss(network, (x, x, z), 0).item()
    assert loss == pytest.approx(sum(expected) / 2, rel=1e-4)
