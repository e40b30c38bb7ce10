"""Joint dictionaries: each update against its own optimality condition, descent, recovery."""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.dictionary import learn_dictionary
from tutorial_lib.multimodal import (
    BLOCKS,
    JointModel,
    JointResult,
    _some,
    joint_terms,
    learn_joint,
    predict_code,
    start_joint,
    update_codes,
    update_dictionary,
    update_links,
)
from tutorial_lib.sparse_coding import lasso, lasso_kkt
from tutorial_lib.thresholding import soft

CHAPTER = Path(__file__).parents[1] / "book" / "chapters" / "12_multimodal_dictionaries.md"
WEIGHTS = {"nu": (0.1, 0.05, 0.2), "mu": (0.3, 0.7), "alpha": 2.0}
SIZES = (5, 8, 6)  # p, q, r
ATOMS = 9


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def random_signals(count=40, seed=0):
    return tuple(rand(count, n, seed=seed + i) for i, n in enumerate(SIZES))


def random_model(seed=10):
    D = [F.normalize(rand(n, ATOMS, seed=seed + i), dim=0) for i, n in enumerate(SIZES)]
    return JointModel(*D, rand(ATOMS, ATOMS, seed=seed + 3), rand(ATOMS, ATOMS, seed=seed + 4))


def random_codes(count=40, seed=20):
    return tuple(rand(count, ATOMS, seed=seed + i) for i in range(3))


def F_of(signals, codes, model, **changed):
    return sum(joint_terms(signals, codes, model, **(WEIGHTS | changed)).values())


# The objective -----------------------------------------------------------------------------------


def test_terms_are_the_published_ones_with_columns():
    """Written out with columns, and with the halves where they are published."""
    S, G, m = random_signals(), random_codes(), random_model()
    X, Y, Z, G_x, G_y, G_z = (v.mT for v in (*S, *G))
    fit = sum(
        ((v - D @ g) ** 2).sum() / 2
        for v, D, g in ((X, m.D_x, G_x), (Y, m.D_y, G_y), (Z, m.D_z, G_z))
    )
    terms = joint_terms(S, G, m, **WEIGHTS)
    wanted = {
        "fit": fit,
        "sparsity": 0.1 * G_x.abs().sum() + 0.05 * G_y.abs().sum() + 0.2 * G_z.abs().sum(),
        "link": 2.0 * ((G_z - m.W_x @ G_x - m.W_y @ G_y) ** 2).sum(),
        "ridge": 0.3 * (m.W_x**2).sum() + 0.7 * (m.W_y**2).sum(),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.isclose(terms[name], value), name


# Codes -------------------------------------------------------------------------------------------


def block(i, S, G, m, alpha):
    """gram, b, a Lipschitz constant, and nu of a block of codes, as a stacked lasso gives them."""
    D, W = m[i], (m.W_x, m.W_y, torch.eye(ATOMS).double())[i]
    if i == 2:
        target = G[0] @ m.W_x.mT + G[1] @ m.W_y.mT
    else:
        target = G[2] - G[1 - i] @ m[4 - i].mT
    root = (2 * alpha) ** 0.5
    stacked = torch.cat([D, root * W])
    signals = torch.cat([S[i], root * target], 1)
    L = torch.linalg.matrix_norm(D, 2) ** 2 + 2 * alpha * torch.linalg.matrix_norm(W, 2) ** 2
    return stacked, signals, L.item()


@pytest.mark.parametrize("i", [0, 1, 2])
def test_codes_meet_the_conditions_of_the_stacked_lasso(i):
    S, G, m = random_signals(), random_codes(), random_model()
    A, v, L = block(i, S, G, m, WEIGHTS["alpha"])
    nu = WEIGHTS["nu"][i]
    solved = update_codes(G[i], A.mT @ A, v @ A, nu, lipschitz=L, steps=4000)
    assert lasso_kkt(v, A, solved, nu).max() < 1e-6
    peer = lasso(v, A, nu, rtol=1e-12, max_steps=20_000).codes
    assert torch.allclose(solved, peer, atol=1e-5)
    # the same block of the whole objective: no neighbour is better
    codes = list(G)
    codes[i] = solved
    best = F_of(S, tuple(codes), m)
    for scale in (1e-3, 1e-1):
        codes[i] = solved + scale * rand(*solved.shape, seed=99)
        assert F_of(S, tuple(codes), m) > best


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50])
def test_no_row_of_codes_ends_higher_than_it_began(steps):
    S, G, m = random_signals(), random_codes(), random_model()
    A, v, L = block(0, S, G, m, WEIGHTS["alpha"])
    nu = WEIGHTS["nu"][0]

    def value(codes):
        return ((v - codes @ A.mT) ** 2).sum(1) / 2 + nu * codes.abs().sum(1)

    near = update_codes(G[0], A.mT @ A, v @ A, nu, lipschitz=L, steps=30)
    done = update_codes(near, A.mT @ A, v @ A, nu, lipschitz=L, steps=steps)
    assert (value(done) <= value(near) * (1 + 1e-12)).all()


def test_more_steps_are_monotone_where_plain_fista_is_not():
    """From zero, step by step; plain FISTA overshoots."""
    S, G, m = random_signals(), random_codes(), random_model()
    A, v, L = block(0, S, G, m, WEIGHTS["alpha"])
    gram, b = A.mT @ A, v @ A

    def value(c):
        return ((c @ gram / 2 - b) * c).sum(1) + 0.1 * c.abs().sum(1)

    ours, plain = [], []
    x = u = torch.zeros_like(G[0])
    t = 1.0
    for steps in range(1, 120):
        ours.append(value(update_codes(0 * x, gram, b, 0.1, lipschitz=L, steps=steps)))
        new = soft(u - (u @ gram - b) / L, 0.1 / L)
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        u, x, t = new + (t - 1) / t_new * (new - x), new, t_new
        plain.append(value(x))
    rise = [torch.stack(w).diff(dim=0).max() for w in (ours, plain)]
    assert rise[0] < 1e-12 and rise[1] > 1e-4


# Dictionaries ------------------------------------------------------------------------------------


def sweep(D, X, G, times):
    for _ in range(times):
        D = update_dictionary(D, X, G)
    return D


def violation(D, X, G):
    """Karush-Kuhn-Tucker: inside the ball no pull, on the sphere a pull straight outwards."""
    pull = (X - G @ D.mT).mT @ G
    outwards = (pull * D).sum(0).clamp(min=0) * (torch.linalg.vector_norm(D, dim=0) > 1 - 1e-9)
    return (pull - outwards * D).norm(dim=0)


def test_one_atom_is_at_its_minimum_in_the_ball():
    X, G = random_signals()[0], random_codes()[0]
    D = random_model().D_x / 2
    new = update_dictionary(D, X, G)
    assert (new.norm(dim=0) <= 1 + 1e-12).all()
    assert violation(new, X, G)[-1] < 1e-9  # the last one, after which nothing has moved
    best = ((X - G @ new.mT) ** 2).sum()
    for seed in range(20):
        other = new.clone()
        other[:, -1] += 0.1 * rand(len(D), seed=seed)
        other[:, -1] /= other[:, -1].norm().clamp(min=1)
        assert ((X - G @ other.mT) ** 2).sum() >= best


@pytest.mark.parametrize("scale", [1.0, 0.02, 10.0])
def test_many_sweeps_meet_the_conditions_of_all_atoms(scale):
    """Small signals: atoms inside the ball, and least squares; large ones: all on the sphere."""
    X, G = scale * random_signals()[0], random_codes()[0]
    D = sweep(random_model().D_x, X, G, 600)
    assert violation(D, X, G).max() < 1e-7
    length = D.norm(dim=0)
    if scale == 0.02:
        assert length.max() < 0.9
        assert torch.allclose(D.mT, torch.linalg.lstsq(G, X).solution, atol=1e-7)
    if scale == 10.0:
        assert (length > 0.99).sum() > ATOMS / 2


def test_atoms_without_codes_stay():
    X, G, D = random_signals()[0], random_codes()[0].clone(), random_model().D_x
    G[:, 3] = 0
    new = update_dictionary(D, X, G)
    assert torch.equal(new[:, 3], D[:, 3])
    assert (new[:, 2] - D[:, 2]).abs().max() > 1e-3


def test_least_squares_and_scaling_raises_what_the_update_lowers():
    S, G, m = random_signals(), random_codes(), random_model()
    least = torch.linalg.lstsq(G[0], 5 * S[0]).solution.mT
    signals = (5 * S[0], *S[1:])
    good = m._replace(D_x=sweep(m.D_x, signals[0], G[0], 600))
    scaled = m._replace(D_x=F.normalize(least, dim=0))
    assert F_of(signals, G, scaled) > F_of(signals, G, good) + 1e-3


# Links -------------------------------------------------------------------------------------------


def test_links_have_no_gradient():
    S, G, m = random_signals(), random_codes(), random_model()
    links = update_links(G, mu=WEIGHTS["mu"], alpha=WEIGHTS["alpha"])
    free = [w.requires_grad_() for w in links]
    F_of(S, G, JointModel(*m[:3], *free)).backward()
    for w in free:
        assert w.grad.abs().max() < 1e-9


def test_links_are_the_formula_with_columns():
    G_x, G_y, G_z = (g.mT for g in random_codes())
    G = torch.cat([G_x, G_y])
    mu = torch.tensor([0.3] * ATOMS + [0.7] * ATOMS).double()
    W = G_z @ G.mT @ torch.linalg.inv(G @ G.mT + torch.diag(mu) / 2.0)
    W_x, W_y = update_links(random_codes(), mu=(0.3, 0.7), alpha=2.0)
    assert torch.allclose(torch.cat([W_x, W_y], 1), W)


def test_each_mu_shrinks_its_own_links():
    norms = {}
    for mu in ((1.0, 1.0), (1000.0, 1.0), (1.0, 1000.0)):
        norms[mu] = [w.norm().item() for w in update_links(random_codes(), mu=mu, alpha=1.0)]
    assert norms[1000.0, 1.0][0] < 0.2 * norms[1.0, 1.0][0]
    assert norms[1.0, 1000.0][1] < 0.2 * norms[1.0, 1.0][1]
    assert norms[1000.0, 1.0][1] > 0.5 * norms[1.0, 1.0][1]


# Learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_the_objective_never_rises(alpha, steps):
    S = random_signals(60)
    weights = WEIGHTS | {"alpha": alpha}
    result = learn_joint(*S, atoms=ATOMS, rounds=15, steps=steps, **weights)
    h = result.history
    assert h.dtype == torch.float64 and len(h) == len(BLOCKS) * 15 + 1
    assert (h.diff() <= 1e-9 * h[:-1]).all()
    assert h[-1] < 0.9 * h[0]
    assert torch.isclose(h[-1], F_of(S, result.codes, result.model, alpha=alpha))
    for D in result.model[:3]:
        assert (D.norm(dim=0) <= 1 + 1e-12).all()


def test_every_block_lowers_the_objective():
    """An update that did nothing, or was left out, would show as a block without descent."""
    S = random_signals(60)
    first = JointResult(random_model(), random_codes(60), torch.zeros(0).double())
    h = learn_joint(*S, atoms=ATOMS, rounds=1, start=first, **WEIGHTS).history
    for name, drop in zip(BLOCKS, -h.diff() / h[0], strict=True):
        assert drop > 1e-6, name


def test_going_on_is_the_same_as_not_stopping():
    S = random_signals()
    whole = learn_joint(*S, atoms=ATOMS, rounds=5, **WEIGHTS)
    half = learn_joint(*S, atoms=ATOMS, rounds=2, **WEIGHTS)
    rest = learn_joint(*S, atoms=ATOMS, rounds=3, start=half, **WEIGHTS)
    assert torch.allclose(rest.history[0], half.history[-1], rtol=1e-12)
    assert torch.allclose(rest.history[-1], whole.history[-1], rtol=1e-9)


def test_seed_start_and_dtype():
    S = random_signals()
    runs = [learn_joint(*S, atoms=4, rounds=2, seed=s, **WEIGHTS) for s in (0, 0, 1)]
    assert torch.equal(runs[0].history, runs[1].history)
    assert not torch.equal(runs[0].history, runs[2].history)
    begun = learn_joint(*S, atoms=ATOMS, rounds=1, start=random_model(), **WEIGHTS)
    assert len(begun.history) == 8
    single = learn_joint(*(v.float() for v in S), atoms=4, rounds=2, **WEIGHTS)
    assert all(v.dtype == torch.float32 for v in (*single.model, *single.codes))
    assert torch.allclose(single.history, runs[0].history, rtol=1e-3)


def test_without_a_weight_on_a_code_the_start_is_zero_codes():
    weights = WEIGHTS | {"nu": (0.1, 0.1, 0.0)}
    h = learn_joint(*random_signals(), atoms=4, rounds=2, **weights).history
    assert (h.diff() <= 1e-9 * h[:-1]).all()


# A planted triple --------------------------------------------------------------------------------


def plant(count, atoms=24, n=20, seed=0):
    """16 atoms of x and of y write 24 atoms of z, 8 of these are written by both."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def signs(*shape):
        return 2.0 * (uniform(*shape) < 0.5) - 1

    D = [
        F.normalize(torch.randn(n, atoms, generator=g, dtype=torch.float64), dim=0)
        for _ in range(3)
    ]
    i, W = torch.arange(16), torch.zeros(2, atoms, atoms).double()
    W[0, i, i] = signs(16) * (0.7 + 0.6 * uniform(16))
    W[1, i + 8, i] = signs(16) * (0.7 + 0.6 * uniform(16))

    def code(m):
        values = signs(m, 2) * (1 + uniform(m, 2))
        values[:, 1] *= uniform(m) < 0.5
        return torch.zeros(m, atoms).double().scatter_(1, uniform(m, atoms).topk(2).indices, values)

    def draw(m):
        a, b = code(m), code(m)
        codes = (a, b, a @ W[0].mT + b @ W[1].mT)
        return codes, tuple(c @ d.mT for c, d in zip(codes, D, strict=True))

    return JointModel(*D, *W), draw(count), draw(500)


def test_a_planted_triple_is_recovered():
    true, (_, S), (test_codes, test_S) = plant(1500)
    result = start_joint(*S, atoms=24, n_nonzero_coefs=(2, 2, 3), steps=30, restarts=4)
    for nu in (0.1, 0.03, 0.01):
        weights = {"nu": (nu,) * 3, "mu": (0.01, 0.01), "alpha": 1.0}
        result = learn_joint(*S, atoms=24, rounds=6, steps=15, start=result, **weights)
        assert (result.history.diff() <= 1e-9 * result.history[:-1]).all()
    model = result.model

    orders, signs = [], []
    for D, planted in zip(model[:3], true[:3], strict=True):
        cosines = planted.mT @ F.normalize(D, dim=0)
        order = cosines.abs().argmax(1)
        best = cosines[torch.arange(24), order]
        assert (best.abs() > 0.99).double().mean() >= 0.95
        assert len(order.unique()) == 24
        orders.append(order)
        signs.append(best.sign())
    for i, (W, planted) in enumerate(zip(model[3:], true[3:], strict=True)):
        found = W[orders[2]][:, orders[i]] * signs[2][:, None] * signs[i]
        assert (found - planted).abs().max() < 0.03

    a, b = (lasso(v, D, 0.01, rtol=1e-7).codes for v, D in zip(test_S, model[:2], strict=False))
    c = predict_code(model, a, b, threshold=0.01 / 2)
    z_error = (c @ model.D_z.mT - test_S[2]).square().sum() / test_S[2].square().sum()
    c = c[:, orders[2]] * signs[2]
    assert (c - test_codes[2]).square().sum() < 1e-3 * test_codes[2].square().sum()  # -30 dB
    assert z_error < 1e-3
    assert ((c.abs() > 0.05) == (test_codes[2] != 0)).all(1).double().mean() > 0.97


def test_the_start_has_unit_atoms_and_depends_on_its_seed():
    S = random_signals(80)
    starts = [
        start_joint(*S, atoms=12, n_nonzero_coefs=(2, 2, 2), steps=2, seed=s) for s in (0, 0, 1)
    ]
    for D in starts[0][:3]:
        assert torch.allclose(D.norm(dim=0), torch.ones(12).double())
    assert all(torch.equal(u, v) for u, v in zip(*starts[:2], strict=True))
    assert not torch.equal(starts[0].D_x, starts[2].D_x)


def test_restarts_keep_the_best_dictionary():
    _, (_, S), _ = plant(400, seed=1)
    sizes = {"n_nonzero_coefs": 2, "steps": 4}
    runs = [learn_dictionary(S[0], _some(S[0], 24, seed), **sizes) for seed in range(5)]
    best = min(runs, key=lambda run: run.history[-1])
    assert best is not runs[0]
    sizes["n_nonzero_coefs"] = (2, 2, 3)
    assert torch.equal(start_joint(*S, atoms=24, restarts=5, **sizes).D_x, best.dictionary)
    assert torch.equal(start_joint(*S, atoms=24, **sizes).D_x, runs[0].dictionary)


# The rule of the test ----------------------------------------------------------------------------


def test_the_predicted_code_is_the_argmin_without_the_target():
    m, nu, alpha = random_model(), 0.4, 1.5
    a, b = rand(30, ATOMS, seed=1), rand(30, ATOMS, seed=2)
    c = predict_code(m, a, b, threshold=nu / (2 * alpha))

    def price(c):
        return alpha * (c - a @ m.W_x.mT - b @ m.W_y.mT).square().sum(1) + nu * c.abs().sum(1)

    for scale in (1e-4, 1e-2, 1.0):
        for seed in range(20):
            assert (price(c + scale * rand(*c.shape, seed=seed)) > price(c)).all()
    other = predict_code(m, a, b, threshold=nu / alpha)  # with a half that the link does not have
    assert (price(other) > price(c)).all()


def test_the_predicted_code_is_the_limit_of_the_learned_one_without_a_fit():
    """With D_z = 0 the block of G_z is solved by the rule, in one step."""
    G, m = random_codes(), random_model()
    told = G[0] @ m.W_x.mT + G[1] @ m.W_y.mT
    gram, b = 2 * 2.0 * torch.eye(ATOMS).double(), 2 * 2.0 * told
    solved = update_codes(G[2], gram, b, 0.2, lipschitz=4.0, steps=1)
    assert torch.allclose(solved, predict_code(m, G[0], G[1], threshold=0.2 / (2 * 2.0)))


def test_batches_and_single_codes():
    m, a, b = random_model(), rand(2, 3, ATOMS, seed=1), rand(2, 3, ATOMS, seed=2)
    c = predict_code(m, a, b, threshold=0.1)
    assert c.shape == (2, 3, ATOMS)
    assert torch.allclose(c[1, 2], predict_code(m, a[1, 2], b[1, 2], threshold=0.1))


# What is refused ---------------------------------------------------------------------------------


def call(**changed):
    signals = dict(zip("xyz", random_signals(), strict=True))
    return learn_joint(**({**signals, "atoms": 4, "rounds": 1, **WEIGHTS} | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"atoms": 0}, "atoms = 0: at least 1"),
        ({"rounds": 0}, "rounds = 0, steps = 20: both must be at least 1"),
        ({"steps": 0}, "steps = 0"),
        ({"alpha": 0.0}, r"alpha = 0\.0: nu must be nonnegative, mu and alpha positive"),
        ({"alpha": float("nan")}, "alpha = nan"),
        ({"mu": (0.0, 1.0)}, r"mu = \(0\.0, 1\.0\)"),
        ({"nu": (0.1, -0.1, 0.1)}, r"nu = \(0\.1, -0\.1, 0\.1\)"),
        ({"y": torch.full((40, 8), torch.nan).double()}, "y .*NaN"),
        ({"z": torch.ones(40, 6)}, r"z of shape \(40, 6\) and torch\.float32: .*float64 as x"),
        ({"atoms": 41}, "40 signals are not zero: at least atoms = 41"),
        ({"z": torch.zeros(40, 6).double()}, "0 signals are not zero"),
        ({"start": random_model()}, r"D_x of shape \(5, 9\) .*\(5, 4\)"),
        (
            {
                "start": JointResult(random_model(), random_codes(39), torch.zeros(0)),
                "atoms": ATOMS,
            },
            r"G_x of shape \(39, 9\) .*\(40, 9\)",
        ),
        (
            {"start": random_model()._replace(D_y=2 * random_model().D_y), "atoms": ATOMS},
            "an atom of D_y has length 2",
        ),
    ],
)
def test_refuses(changed, message):
    with pytest.raises(ValueError, match=message):
        call(**changed)


def test_refuses_codes_that_do_not_fit_and_restarts():
    m = random_model()
    with pytest.raises(ValueError, match=r"\(9,\) and \(8,\): both must be \(\*batch, 9\)"):
        predict_code.__wrapped__(m, rand(9), rand(8), threshold=0.1)
    with pytest.raises(ValueError, match="weight"):
        predict_code(m, rand(9), rand(9), threshold=-0.1)
    with pytest.raises(ValueError, match="restarts = 0: at least 1"):
        start_joint(*random_signals(), atoms=4, n_nonzero_coefs=(1, 1, 1), steps=1, restarts=0)


# The chapter -------------------------------------------------------------------------------------


def test_visible_cells_are_the_packaged_functions():
    """The cells of the chapter, run here, do what the package does."""
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", CHAPTER.read_text("utf8"), re.DOTALL)
    names = {"torch": torch, "F": F, "soft": soft, "math": math}
    wanted = ("objective", "code_problem", "monotone_fista", "atom_updates", "ridge_links", "learn")
    for name in wanted:
        (cell,) = (c for c in cells if f"\ndef {name}(" in "\n" + c)
        body = re.search(rf"^def {name}\(.*?(?=^\S(?!ef )|\Z)", cell, re.DOTALL | re.MULTILINE)[0]
        assert body.count("\n") <= 40
        exec(body, names)
    S, first = (
        random_signals(),
        JointResult(random_model(), random_codes(), torch.zeros(0).double()),
    )
    packaged = learn_joint(*S, atoms=ATOMS, rounds=3, steps=7, start=first, **WEIGHTS)
    G, D, W, history = names["learn"](
        S, first.codes, first.model[:3], first.model[3:], rounds=3, steps=7, **WEIGHTS
    )
    assert torch.allclose(packaged.history, torch.tensor(history, dtype=torch.float64), rtol=1e-8)
    for u, v in zip((*D, *W, *G), (*packaged.model, *packaged.codes), strict=True):
        assert torch.allclose(u, v, atol=1e-5)
