"""DECSC: its two codes, the sweep as block ISTA, cubes and shifts."""

import ast
import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import (
    conv2d,
    conv3d,
    conv_transpose2d,
    conv_transpose3d,
    pixel_shuffle,
    pixel_unshuffle,
)

from tutorial_lib.convolutional_shifts import average_shifts, stack_shifts
from tutorial_lib.fixed_points import Solver, fixed_point
from tutorial_lib.networks.decsc import DECSC, planes, volumes_of
from tutorial_lib.training.recipes.decsc import distance

BANDS = 5


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**options):
    torch.manual_seed(0)
    options = {"maps": 12, "volumes": 8, "heads": 2, "window": 4} | options
    return DECSC(BANDS, **options).requires_grad_(False)


def plain(**options):
    return network(blocks=0, detail=False, **options)


def filters(net):
    """As filters of pixels: (maps, bands, 6, 6) and (volumes, 3, 6, 6)."""
    return pixel_shuffle(net.K, 2), pixel_shuffle(net.D.transpose(1, 2).flatten(1, 2), 2)


def codes(net, side=8, batch=1):
    S = randn(batch, len(net.K), side, side, seed=1)
    return S, randn(batch, len(net.D), BANDS, side, side, seed=2)


@pytest.fixture(scope="module")
def cells():
    """The functions that chapter 20 shows, as they stand there."""
    path = Path(__file__).parents[1] / "book/chapters/20_decsc.md"
    blocks = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", path.read_text("utf8"), re.S | re.M)
    names = {f.__name__: f for f in (conv2d, conv3d, conv_transpose2d, conv_transpose3d)}
    wanted = ("K", "K_T", "D", "D_T", "soft", "plain_sweep", "objective")
    block = next(b for b in blocks if "def plain_sweep(" in b)
    for node in ast.parse(block).body:
        exec(ast.unparse(node), names)
    assert set(wanted) <= names.keys()
    return names


# The model ---------------------------------------------------------------------------------------


def test_every_band_has_its_filters_and_all_share_the_maps(cells):
    net = network()
    k, (S, _) = filters(net)[0], codes(net)
    cube = pixel_shuffle(planes(S, net.K), 2)
    assert torch.allclose(cube, cells["K"](S, k), atol=1e-5)
    band = sum(
        conv_transpose2d(S[:, m : m + 1], k[m, 3][None, None], stride=2, padding=2)
        for m in range(len(k))
    )
    assert torch.allclose(cube[:, 3:4], band, atol=1e-5)


def test_unshared_filters_slide_along_the_bands(cells):
    net = network()
    d, (_, H) = filters(net)[1], codes(net)
    cube = pixel_shuffle(volumes_of(H, net.D), 2)
    assert torch.allclose(cube, cells["D"](H, d), atol=1e-5)
    one = torch.zeros_like(H)
    one[0, 2, 1, 4, 4] = 1.0  # volume 2, band 1: bands 0 to 2
    assert torch.allclose(cells["D"](one, d)[0, :3, 6:12, 6:12], d[2], atol=1e-6)
    assert not cells["D"](one, d)[0, 3:].any()


def test_at_the_start_encoders_are_adjoints_and_norms_are_one(cells):
    net = network()
    k, d = filters(net)
    S, H = codes(net)
    e = randn(1, BANDS, 16, 16, seed=3)
    assert torch.equal(net.E_K, net.K) and torch.equal(net.E_D, net.D)
    pairs = (cells["K"](S, k), cells["K_T"](e, k), S), (cells["D"](H, d), cells["D_T"](e, d), H)
    for forward, back, z in pairs:
        assert torch.isclose((forward * e).sum(), (back * z).sum(), rtol=1e-4)
    for A, z in (
        (lambda u: cells["K_T"](cells["K"](u, k), k), S),
        (lambda u: cells["D_T"](cells["D"](u, d), d), H),
    ):
        for _ in range(60):
            z = A(z / z.norm())
        assert 0.9 < z.norm() < 1 + 1e-5  # ||A^T A||


# The sweep ---------------------------------------------------------------------------------------


def test_a_sweep_without_modules_is_the_cell_of_the_chapter(cells):
    net, Y = plain(), randn(2, BANDS, 16, 16, seed=4)
    f, start = net.problem(Y)
    lam = net.thresholds(pixel_unshuffle(Y, 2))
    for z in (start, codes(net, batch=2)):
        mine = cells["plain_sweep"](*z, Y, *filters(net), *lam)
        assert all(torch.allclose(u, v, atol=1e-5) for u, v in zip(f(z), mine, strict=True))


def test_without_modules_the_objective_falls_and_the_end_is_optimal(cells):
    net, Y = plain(local=False), 3 * randn(1, BANDS, 16, 16, seed=4)
    k, d = filters(net)
    lam = net.thresholds(pixel_unshuffle(Y, 2))
    f, z = net.problem(Y)
    z, values = codes(net), []
    for _ in range(30):
        values.append(cells["objective"](*z, Y, k, d, *lam))
        z = f(z)
    assert all(b <= a * (1 + 1e-6) for a, b in zip(values, values[1:], strict=False))
    assert values[-1] < values[0] / 2
    z = fixed_point(f, z, rtol=1e-5, max_steps=500).value
    left = Y - cells["K"](z[0], k) - cells["D"](z[1], d)
    pulls = cells["K_T"](left, k), cells["D_T"](left, d)
    for code, pull, t in zip(z, pulls, lam, strict=True):
        pull = pull - net.ridge * code
        assert (pull.abs() - t).max() <= 0.02 * t.mean()
        on = code != 0
        assert (pull[on] - t[on] * code[on].sign()).abs().max() <= 0.02 * t.mean()


def test_the_ridge_makes_the_sweeps_of_the_lasso_contract():
    for ridge in (0.03, 0.3):
        net, Y = plain(ridge=ridge), 3 * randn(1, BANDS, 16, 16, seed=4)
        f, _ = net.problem(Y)
        u, v = codes(net), tuple(-c for c in codes(net))
        for _ in range(30):
            before = distance(u, v)
            u, v = f(u), f(v)
        assert distance(u, v) < before / (1 + ridge) * (1 + 1e-4)


def test_each_line_is_a_proximal_step_and_the_second_sees_the_new_maps():
    net = network()
    f, _ = net.problem(Y := randn(1, BANDS, 16, 16, seed=5))
    y = pixel_unshuffle(Y, 2)
    S, H = codes(net)
    new_S, new_H = f((S, H))
    v = S + conv2d(y - planes(S, net.K) - volumes_of(H, net.D_r), net.E_K, padding=1)
    t, t_H = net.thresholds(y)
    best = (v - v.clamp(-t, t)) / 1.04
    assert torch.allclose(new_S, net.trans(best), atol=1e-5)

    def price(u):
        return ((u - v).square() / 2 + t * u.abs() + 0.04 / 2 * u.square()).sum()

    for scale in (1e-3, 1e-1):
        assert price(best) <= price(best + scale * randn(*best.shape, seed=6))
    rest = pixel_unshuffle(Y, 2) - volumes_of(H, net.D) - planes(new_S, net.K_r)
    r = rest.unflatten(1, (BANDS, 4)).transpose(1, 2)
    v, t = H + conv3d(r, net.E_D, padding=1), t_H
    assert torch.allclose(new_H, net.detail((v - v.clamp(-t, t)) / 1.04), atol=1e-5)


# Cubes -------------------------------------------------------------------------------------------


def test_the_start_is_one_sweep_from_zero_and_unrolling_goes_on_from_there():
    net, Y = network(), randn(2, BANDS, 16, 16, seed=10)
    f, start = net.problem(Y)
    zero = tuple(torch.zeros_like(u) for u in start)
    assert all(torch.equal(u, v) for u, v in zip(f(zero), start, strict=True))
    net.unrolled = 3
    expected = f(f(start))
    found = net.solve(Y).value
    assert all(torch.allclose(u, v, atol=1e-6) for u, v in zip(found, expected, strict=True))


@pytest.mark.parametrize("part", ["both", "shared", "unshared"])
def test_parts_add_up_and_can_stand_alone(part):
    options = {} if part == "both" else {"unshared" if part == "shared" else "shared": False}
    net, Y = network(**options), randn(1, BANDS, 16, 16, seed=11)
    z, info = net.solve(Y, solver=Solver(rtol=0.0, max_steps=3))
    assert len(z) == (2 if part == "both" else 1)
    C, U = net.parts(z)
    assert torch.equal(net.cubes(z), C + U) and net.cubes(z).shape == Y.shape
    assert isinstance(C, float) == (part == "unshared")
    assert isinstance(U, float) == (part == "shared")


def test_a_cube_is_restored_as_if_it_were_alone():
    net = plain()
    Y = randn(3, BANDS, 16, 16, seed=12) * torch.tensor([2.0, 5.0, 20.0]).view(3, 1, 1, 1)
    solver = Solver(rtol=1e-2, max_steps=200)
    together = net.solve(Y, solver=solver)
    assert len(set(together.info.steps.tolist())) > 1  # they stop at different times
    for i in range(3):
        alone = net.solve(Y[i : i + 1], solver=solver)
        assert alone.info.steps[0] == together.info.steps[i]
        found, expected = net.cubes(together.value)[i], net.cubes(alone.value)[0]
        assert torch.allclose(found, expected, atol=1e-3 * Y[i].abs().max().item())


@pytest.mark.parametrize("shape", [(16, 16), (15, 18), (9, 8)])
def test_restore_is_the_mean_over_four_shifts(shape):
    net, Y = network(), randn(1, BANDS, *shape, seed=13)
    solver = Solver(rtol=0.0, max_steps=2)
    found, info = net.restore(Y, solver=solver)
    assert found.shape == Y.shape and len(info.reason) == 4
    X = []
    for moved in stack_shifts(Y, 2, boundary="padded"):
        h, w = moved.shape[-2:]
        even = torch.nn.functional.pad(moved, (0, w % 2, 0, h % 2), mode="replicate")
        X.append(net.cubes(net.solve(even, solver=solver).value)[..., :h, :w])
    mean = average_shifts(torch.stack(X), 2, shape, boundary="padded")
    assert torch.allclose(found, mean, atol=1e-5)


def test_what_the_network_refuses():
    net = network()
    with pytest.raises(ValueError, match="4 bands: the network has 5"):
        net.solve(torch.zeros(1, 4, 16, 16))
    with pytest.raises(ValueError, match="15 x 16 pixels: even numbers"):
        net.solve(torch.zeros(1, 5, 15, 16))
    with pytest.raises(ValueError, match="7 x 16 pixels: 8 x 8 or more"):
        net.restore(torch.zeros(1, 5, 7, 16))
    with pytest.raises(ValueError, match="NaN"):
        net.solve(torch.full((1, 5, 16, 16), math.nan))
    with pytest.raises(ValueError, match="no code is left"):
        DECSC(shared=False, unshared=False)
    with pytest.raises(ValueError, match="unrolled = 1: two sweeps"):
        DECSC(unrolled=1)
    with pytest.raises(ValueError, match="ridge = -0.1: 0 or more"):
        DECSC(ridge=-0.1)
    with pytest.raises(ValueError, match="maps = 80: at most four times the 16 bands"):
        DECSC(maps=80)
    with pytest.raises(ValueError, match="volumes = 6: 4, 8, 12 or 16"):
        DECSC(volumes=6)
