"""The cells of chapter 18 against the package and against their formulas."""

import ast
import re
from pathlib import Path

import pytest
import torch
from contractions import randn, tanh_map

from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import fixed_point
from tutorial_lib.prox import prox_l1


@pytest.fixture(scope="module")
def cells():
    """The functions that chapter 18 shows, as they stand there."""
    path = Path(__file__).parents[1] / "book/chapters/18_deep_equilibrium.md"
    blocks = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", path.read_text("utf8"), re.S | re.M)
    names = {"torch": torch, "fixed_point": fixed_point, "prox_l1": prox_l1}
    wanted = ("picard", "anderson", "implicit_gradient", "ista_step", "saved_bytes")
    for block in blocks:
        if not re.search(rf"^def ({'|'.join(wanted)})\(", block, re.M):
            continue
        for node in ast.parse(block).body:
            if isinstance(node, ast.FunctionDef) and node.name in wanted:
                exec(ast.unparse(node), names)
    assert set(wanted) <= names.keys()
    return names


def test_the_chapters_picard_and_anderson_are_the_packages(cells):
    f, _, x = tanh_map(b=1)
    z, residuals = cells["picard"](f, torch.zeros_like(x), rtol=1e-6)
    found, info = fixed_point(f, torch.zeros_like(x), method="picard", rtol=1e-6)
    assert torch.equal(z, found)
    assert residuals[-1] == pytest.approx(info.distance.item(), rel=1e-12)

    single = lambda z: f(z[None])[0]  # noqa: E731
    _, residuals = cells["anderson"](single, torch.zeros(12).double(), steps=9, ridge=1e-10)
    options = {"rtol": 0.0, "max_steps": 9, "ridge": 1e-10}
    info = fixed_point(f, torch.zeros_like(x), **options)[1]
    expected = torch.tensor(residuals, dtype=torch.float64)
    assert torch.allclose(info.history[:, 0], expected, rtol=1e-5)


def test_the_chapters_implicit_gradient_is_the_packages(cells):
    f, W, x = tanh_map()
    W.requires_grad_()
    v = randn(*x.shape, seed=3)
    z, _ = fixed_point(f, torch.zeros_like(x), rtol=1e-13)
    (mine,) = cells["implicit_gradient"](f, z, v, [W])
    value, _ = equilibrium(f, torch.zeros_like(x), rtol=1e-13)
    (found,) = torch.autograd.grad((v * value).sum(), W)
    assert torch.allclose(mine, found, atol=1e-10)


def test_equation_4_and_the_elastic_factor(cells):
    D, y = randn(8, 16), randn(2, 8, seed=1)
    t, lam = 1 / torch.linalg.matrix_norm(D, 2).item() ** 2, 0.4
    step = cells["ista_step"]
    cells["t"] = t
    for mu in (0.0, 0.5, 3.0):
        u, v = randn(2, 16, seed=2), randn(2, 16, seed=3)
        moved = (step(u, D, y, lam, mu) - step(v, D, y, lam, mu)).norm()
        assert moved <= (u - v).norm() / (1 + t * mu)
    f = lambda z: step(z, D, y, lam)  # noqa: E731
    z, _ = fixed_point(f, torch.zeros(2, 16).double(), rtol=1e-13, max_steps=5000)
    c = (y - z @ D.mT) @ D
    assert (c.abs() <= lam + 1e-9).all()
    assert torch.allclose(c[z != 0], lam * z[z != 0].sign())
