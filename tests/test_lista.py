"""LISTA: ISTA at the start, the analytic weight, support selection, what training must change."""

import math

import pytest
import torch

from tutorial_lib import operators, solvers
from tutorial_lib.data import gaussian_matrix, observe, sparse_codes
from tutorial_lib.networks.lista import (
    LISTA,
    CoupledLISTA,
    StepLISTA,
    analytic_weight,
    coherence,
    coupled_lista,
    selection,
    shrink,
)
from tutorial_lib.thresholding import soft
from tutorial_lib.training import load_weights, shipped
from tutorial_lib.training.recipes import find, names
from tutorial_lib.training.recipes import lista as recipes
from tutorial_lib.training.weights import WEIGHTS, load_network

MODULES = [find(n) for n in names() if n.startswith(("lista_", "alista"))]
A = gaussian_matrix(20, 40).double()
X = sparse_codes(torch.arange(6), 40).double()
Y = X @ A.mT
NETWORKS = {
    "lista": LISTA,
    "shared": CoupledLISTA,
    "each": lambda *args, **kw: CoupledLISTA(*args, learn="each", **kw),
    "fixed": lambda *args, **kw: CoupledLISTA(*args, learn="fixed", **kw),
    "step": StepLISTA,
}
each_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


# Start -------------------------------------------------------------------------------------------


@each_network
@pytest.mark.parametrize("lam", [0.02, 0.3])
def test_every_layer_is_a_step_of_ista_at_the_start(build, lam):
    iterates = []
    step = 1 / torch.linalg.matrix_norm(A, 2).item() ** 2
    solvers.ista(
        operators.matrix(A),
        Y,
        lam,
        step=step,
        max_steps=7,
        rtol=0.0,
        callback=lambda k, x: iterates.append(x.clone()),
    )
    codes = build(A, 7, lam=lam).codes(Y)
    assert len(codes) == 7
    for code, iterate in zip(codes, iterates, strict=True):
        assert torch.allclose(code, iterate, atol=1e-12)
    assert (codes[-1] != 0).any()


def test_coupled_layers_keep_the_true_code_for_any_weight():
    """With thresholds of zero x* is a fixed point: W^T (A x* - A x*) = 0, whatever W is."""
    W = torch.randn(9, 20, 40, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    zero, one = A.new_zeros(9), A.new_ones(9)
    for k in range(9):
        v = X + (Y - X @ A.mT) @ W[k]
        assert torch.allclose(shrink(v, 0.0), X)
    assert not torch.allclose(coupled_lista(Y, A, W, one, zero)[-1], X)  # but it must get there


def test_lista_from_a_coupled_start_is_coupled():
    W = analytic_weight(A)
    free = LISTA(A, 5, weight=W, step=0.7, thresholds=[0.5, 0.4, 0.3, 0.2, 0.1])
    tied = CoupledLISTA(A, 5, weight=W, steps=0.7, thresholds=[0.5, 0.4, 0.3, 0.2, 0.1])
    assert torch.allclose(free(Y), tied(Y), atol=1e-12)
    with torch.no_grad():
        free.Q.mul_(0.9)
    assert not torch.allclose(free(Y), tied(Y), atol=1e-3)


def test_one_weight_for_each_layer_is_used_by_that_layer_alone():
    net = CoupledLISTA(A, 4, learn="each")
    before = net.codes(Y)
    with torch.no_grad():
        net.weight[2].mul_(1.5)
    after = net.codes(Y)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


# Analytic weight ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 40), (5, 5), (250, 500)])
def test_analytic_weight_minimises_under_its_constraint(shape):
    M = gaussian_matrix(*shape, seed=3).double()
    W = analytic_weight(M)
    assert torch.allclose((W * M).sum(0), M.new_ones(shape[1]), atol=1e-10)
    energy = (W.mT @ M).square().sum()
    g = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1e-1):
        other = W + scale * torch.randn(M.shape, dtype=M.dtype, generator=g)
        other = other / (other * M).sum(0)
        assert (other.mT @ M).square().sum() > energy
    assert shape[0] == shape[1] or coherence(W, M) < coherence(M, M)


def test_analytic_weight_of_an_invertible_matrix_inverts_it():
    M = gaussian_matrix(6, 6, seed=1).double()
    assert torch.allclose(analytic_weight(M).mT @ M, torch.eye(6).double(), atol=1e-9)


def test_analytic_weight_equals_projected_gradients():
    """The published solver: W <- W - eta A (A^T W - I), then back to w_i^T a_i = 1."""
    W = A.clone()
    for _ in range(4000):
        W = W - 0.1 * A @ (A.mT @ W - torch.eye(40).double())
        W = W + (1 - (A * W).sum(0)) * A
    assert torch.allclose(W, analytic_weight(A), atol=1e-8)


def test_analytic_weight_refuses():
    with pytest.raises(ValueError, match=r"\(40, 20\): expected no more rows than columns"):
        analytic_weight(A.mT)
    for dtype in (torch.float32, torch.float64):
        twin = torch.cat([A, A[:1]]).to(dtype)
        with pytest.raises(ValueError, match="rows are linearly dependent"):
            analytic_weight(twin)


# Support selection -------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0, 1, 5, 12.5, 100])
def test_selection_spares_the_largest_entries(percent):
    v = torch.randn(30, 200, generator=torch.Generator().manual_seed(0))
    out = shrink(v, 0.3, percent)
    spared = (out == v) & (v != 0)
    magnitude = v.abs()
    above = (magnitude > 0.3).sum(1)
    assert torch.equal(spared.sum(1), above.clamp(max=int(200 * percent / 100)))
    rest = torch.where(spared, 0, magnitude).amax(1)
    assert (torch.where(spared, magnitude, math.inf).amin(1) >= rest).all()
    assert torch.equal(out[~spared], soft(v, 0.3)[~spared])


def test_no_selection_is_the_soft_threshold_with_its_gradients():
    v = torch.randn(7, 9, dtype=torch.float64, requires_grad=True)
    T = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(shrink(v, T), soft(v, 0.4))
    assert torch.autograd.gradcheck(shrink, (v, T))
    assert torch.autograd.gradcheck(lambda v, T: shrink(v, T, 25), (v, T))


def test_schedule_of_percentages():
    assert selection(12)[:2] == pytest.approx([1.2, 2.4]) and selection(12)[-2:] == [13.0, 13.0]
    assert len(selection(3)) == 3


def test_selection_has_an_effect_in_the_network():
    plain, selecting = (CoupledLISTA(A, 4, percents=p) for p in (None, [10.0] * 4))
    assert (selecting(Y).abs().sum() > plain(Y).abs().sum()).item()
    assert torch.equal(CoupledLISTA(A, 4, percents=[0.0] * 4)(Y), plain(Y))


# Networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "count"),
    [
        ("lista", 40 * 20 + 40 * 40 + 16),
        ("shared", 20 * 40 + 32),
        ("each", 16 * 20 * 40 + 32),
        ("fixed", 32),
        ("step", 16),
    ],
)
def test_parameters(build, count):
    assert sum(p.numel() for p in NETWORKS[build](A, 16).parameters()) == count


@each_network
def test_batch_of_one_and_no_batch(build):
    net = build(A, 5)
    assert torch.allclose(net(Y[2]), net(Y)[2], atol=1e-12)
    assert torch.allclose(net(Y.view(2, 3, 20)), net(Y).view(2, 3, 40), atol=1e-12)


@each_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_gradients(build, dtype):
    net = build(A, 5).to(dtype)
    out = net(Y.to(dtype))
    assert out.dtype == dtype
    out.square().sum().backward()
    for name, p in net.named_parameters():
        assert p.dtype == dtype and p.grad.any(), name


@each_network
def test_device(build):
    net = build(A, 3).to("meta")
    assert net(Y.to("meta")).device.type == "meta"


@each_network
def test_refuses(build):
    with pytest.raises(ValueError, match="layers = 0: expected at least 1"):
        build(A, 0)
    for lam in (-1.0, 0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"lam = {lam}: expected above 0 and finite"):
            build(A, 3, lam=lam)
    with pytest.raises(ValueError, match="expected a finite matrix"):
        build(A * math.nan, 3)
    with pytest.raises(ValueError, match="A is zero"):
        build(A * 0, 3)
    with pytest.raises(ValueError, match=r"y of shape \(6, 40\): expected \(\*batch, 20\)"):
        build(A, 3)(X)


def test_refuses_a_start_that_does_not_fit():
    for build in (LISTA, CoupledLISTA):
        with pytest.raises(ValueError, match=r"weight of shape \(40, 20\): expected .* \(20, 40\)"):
            build(A, 3, weight=A.mT)
        for wrong in ([1.0, 2.0], -1.0, [1.0, 0.0, 1.0]):
            with pytest.raises(ValueError, match="expected one positive number, or 3 of them"):
                build(A, 3, thresholds=wrong)
    with pytest.raises(ValueError, match="learn = 'all': allowed are 'fixed', 'shared', 'each'"):
        CoupledLISTA(A, 3, learn="all")
    with pytest.raises(ValueError, match="2 percents: expected 3, one a layer"):
        CoupledLISTA(A, 3, percents=[1.0, 2.0])
    with pytest.raises(ValueError, match="expected 0 to 100"):
        CoupledLISTA(A, 3, percents=[1.0, 2.0, 101.0])


# Data --------------------------------------------------------------------------------------------


def test_matrix_has_unit_columns_and_stays_the_same():
    M = gaussian_matrix()
    assert torch.allclose(M.norm(dim=0), torch.ones(500))
    assert torch.equal(M, gaussian_matrix()) and not torch.equal(M, gaussian_matrix(seed=1))
    assert torch.linalg.matrix_norm(M.double(), 2).item() ** 2 == pytest.approx(5.588, abs=2e-3)


def test_codes_depend_on_their_number_alone():
    x = sparse_codes(torch.arange(10, 20))
    assert torch.equal(sparse_codes(torch.tensor([13, 11])), x[[3, 1]])
    many = sparse_codes(torch.arange(1000))
    assert (many != 0).sum(1).float().mean().item() == pytest.approx(50, abs=1)
    assert many[many != 0].std().item() == pytest.approx(1, abs=0.02)
    assert (sparse_codes(torch.arange(50), density=0.3) != 0).float().mean() > 0.27


@pytest.mark.parametrize("snr", [40.0, 20.0])
def test_noise_has_its_strength_in_each_sample(snr):
    M, index = gaussian_matrix(), torch.arange(40)
    x = sparse_codes(index)
    clean, noisy = observe(M, x, index), observe(M, x, index, snr=snr)
    assert torch.equal(clean, x @ M.mT)
    measured = 20 * torch.log10(clean.std(1) / (noisy - clean).std(1))
    assert (measured - snr).abs().max() < 1.5
    alone = observe(M, x[5:6], index[5:6], snr=snr)
    assert torch.allclose(alone, noisy[5:6], atol=1e-6)


def test_data_refuses():
    with pytest.raises(ValueError, match="density = 1.5: expected 0 to 1"):
        sparse_codes(torch.arange(2), density=1.5)
    for number in (-1, 2**32):
        with pytest.raises(ValueError, match=rf"sample number {number}: expected 0 to 2\*\*32 - 1"):
            sparse_codes(torch.tensor([number]))
    with pytest.raises(ValueError, match="snr = nan: expected a number of dB, or None"):
        observe(A, X, torch.arange(6), snr=math.nan)


# Recipes and shipped weights ---------------------------------------------------------------------


def test_nmse_is_a_ratio_of_sums():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    estimate = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert recipes.nmse(estimate, x).item() == pytest.approx(10 * math.log10(1 / 10), abs=1e-5)


def test_losses_are_their_formulas():
    recipe = recipes.recipe(kind="cp", lr=1e-3, batch_size=4, validation=4)
    x, y = recipe.batch(torch.arange(4))
    net = recipe.network()
    levels = [recipes.nmse(code, x).item() for code in net.codes(y)]
    expected = sum((k + 1) * level for k, level in enumerate(levels)) / (16 * 17 / 2)
    assert recipe.loss(net, (x, y), 0).item() == pytest.approx(expected, abs=1e-4)
    step = recipes.start("step")
    objective = solvers.lasso_objective(operators.matrix(step.A), y, step(y), 0.1)
    assert recipes.lasso_loss(step, (x, y), 0).item() == pytest.approx(
        objective.mean().item(), rel=1e-5
    )
    other = recipes.lasso_loss(step, (torch.zeros_like(x), y), 0)
    assert other == recipes.lasso_loss(step, (x, y), 0)  # the true code is not looked at


def test_training_validation_and_test_sets_do_not_meet():
    seen = sparse_codes(torch.arange(50))
    validation = recipes.experiment(50, first=recipes.TEST // 2)[1]
    test = recipes.experiment(50)[1]
    for a, b in ((seen, validation), (seen, test), (validation, test)):
        assert not (a[:, None] == b).all(2).any()
    steps = max(m.PROFILES["full"]["steps"] * m.PROFILES["full"]["batch_size"] for m in MODULES)
    assert steps < recipes.TEST // 2


def median(code, x):
    """Of the samples' errors, in dB: the sum over all hangs on a few samples where it is small."""
    return (10 * torch.log10((code - x).square().sum(1) / x.square().sum(1))).median().item()


UNTRAINED = {None: -65.7, 40.0: -42.8, 20.0: -20.5}  # the bar: analytic weight, selection


@pytest.mark.parametrize("snr", UNTRAINED)
def test_untrained_analytic_network(snr):
    _, x, y = recipes.experiment(300, snr=snr)
    code = recipes.start("alista", snr=snr)(y)
    assert median(code, x) == pytest.approx(UNTRAINED[snr], abs=0.7)
    assert recipes.nmse(code, x) < UNTRAINED[snr] + 11


@pytest.mark.parametrize(
    ("name", "kind", "snr"),
    [
        (f"{name}{'' if snr is None else int(snr)}", kind, snr)
        for name, kind in {
            "alista": "alista",
            "lista_cp": "cp",
            "lista_gl": "lista",
            "lista_ss": "ss",
        }.items()
        for snr in (None, 40.0, 20.0)
    ],
)
def test_training_has_lowered_the_error(name, kind, snr):
    """By the middle layer in any case; with noise ALISTA ends where it began."""
    _, x, y = recipes.experiment(400, snr=snr)
    untrained = recipes.start(kind, snr=snr)
    network = load_network(name, recipes.start(kind, snr=snr))
    with torch.no_grad():
        trained, before = network.codes(y), untrained.codes(y)
    assert recipes.nmse(trained[7], x) < recipes.nmse(before[7], x) - 1
    gains = [error(before[-1], x) - error(trained[-1], x) for error in (recipes.nmse, median)]
    assert max(gains) > (0.1 if kind != "alista" or snr is None else -0.2)
    assert load_weights(name)[1]["config"]["snr"] == snr


def test_weights_are_small():
    names = [n for n in shipped() if n.startswith(("lista_", "alista"))]
    sizes = [(WEIGHTS / f"{n}.safetensors").stat().st_size for n in names]
    assert len(sizes) == 13 and max(sizes) < 5e6 and sum(sizes) < 8e6


def test_learned_steps_lower_the_objective():
    """Without a true code, and at every depth from the third layer on."""
    network, ista = load_network("lista_step", recipes.start("step")), recipes.start("step")
    batch = recipes.experiment(200)[1:]
    with torch.no_grad():
        assert recipes.lasso_loss(network, batch, 0) < recipes.lasso_loss(ista, batch, 0)
    assert (network.steps > ista.steps).all()
