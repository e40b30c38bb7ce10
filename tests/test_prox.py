"""Each proximal map is the minimiser that its docstring names."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutorial_lib.prox import (
    project_box,
    project_l2_ball,
    prox_conjugate,
    prox_group,
    prox_l0,
    prox_l1,
    prox_l2_squared,
    prox_nonneg_l1,
)


def nonneg_l1(x):
    return torch.where(x < 0, math.inf, x).sum(-1)


def indicator(inside):
    return torch.where(inside, 0.0, math.inf)


# name: (map of (v, t), the f with map(v, t) = argmin_x 1/2 ||x - v||^2 + t f(x), f convex)
MAPS = {
    "l1": (prox_l1, lambda x: x.abs().sum(-1), True),
    "l0": (prox_l0, lambda x: (x != 0).double().sum(-1), False),
    "group": (prox_group, lambda x: x.norm(dim=-1), True),
    "l2_squared": (prox_l2_squared, lambda x: x.square().sum(-1) / 2, True),
    "nonneg_l1": (prox_nonneg_l1, nonneg_l1, True),
    "box": (
        lambda v, t: project_box(v, low=-0.5, high=1.0),
        lambda x: indicator(((x >= -0.5) & (x <= 1)).all(-1)),
        True,
    ),
    "ball": (
        lambda v, t: project_l2_ball(v, 1.5),
        lambda x: indicator(x.norm(dim=-1) <= 1.5 * (1 + 1e-12)),
        True,
    ),
}
CONVEX = [name for name, (_, _, convex) in MAPS.items() if convex]
vectors = st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4)
weights = st.floats(0, 5, width=32)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
@given(v=vectors, t=weights, seed=st.integers(0, 99))
def test_the_argmin_beats_its_neighbours(name, v, t, seed):
    prox, f, _ = MAPS[name]
    v = tensor(v)
    x = prox(v, t)
    assert f(x) < math.inf  # feasible, and t = 0 keeps the constraint

    def objective(u):
        penalty = torch.where(f(u) == math.inf, math.inf, t * f(u))
        return (u - v).square().sum(-1) / 2 + penalty

    g = torch.Generator().manual_seed(seed)
    scale = tensor([1e-3, 1e-1, 1.0, 10.0]).repeat(50)[:, None]
    near = x + scale * torch.randn(200, 4, generator=g, dtype=torch.float64)
    sparse = torch.where(torch.rand(200, 4, generator=g) < 0.5, near, 0.0)
    candidates = torch.cat([near, sparse, near.clamp(-0.5, 1), v[None], 0 * v[None]])
    assert objective(x) <= objective(candidates).min() + 1e-9


@pytest.mark.parametrize("name", CONVEX)
@given(u=vectors, v=vectors, t=weights)
def test_convex_maps_are_firmly_non_expansive(name, u, v, t):
    prox, _, _ = MAPS[name]
    u, v = tensor(u), tensor(v)
    d = prox(u, t) - prox(v, t)
    assert d.square().sum() <= (d * (u - v)).sum() + 1e-9


@given(v=vectors, t=st.floats(0.1, 5), step=st.floats(0.1, 5))
def test_moreau_identity_against_known_conjugates(v, t, step):
    """Conjugates: of t ||.||_1 the box [-t, t], of t ||.||_2 the ball, of 1/2 ||.||^2 itself."""
    v = tensor(v)
    box = prox_conjugate(lambda u, s: prox_l1(u, s * t), v, step=step)
    assert torch.allclose(box, project_box(v, low=-t, high=t), atol=1e-12)
    ball = prox_conjugate(lambda u, s: prox_group(u, s * t), v, step=step)
    assert torch.allclose(ball, project_l2_ball(v, t), atol=1e-12)
    assert torch.allclose(prox_conjugate(prox_l2_squared, v, step=step), v / (1 + step))
    assert torch.allclose(v, prox_l1(v, t) + project_box(v, low=-t, high=t))


@pytest.mark.parametrize("name", CONVEX)
@given(v=vectors, step=st.floats(0.1, 5))
def test_twice_conjugate_is_the_map_itself(name, v, step):
    prox, _, _ = MAPS[name]
    v = tensor(v)
    twice = prox_conjugate(lambda u, s: prox_conjugate(prox, u, step=s), v, step=step)
    assert torch.allclose(twice, prox(v, step), atol=1e-10)


def test_closed_forms():
    v = tensor([3.0, -0.4, 0.0, -2.0])
    assert prox_l1(v, 1.0).equal(v.sign() * (v.abs() - 1).clamp(min=0))
    assert prox_l0(v, 2.0).tolist() == [3.0, 0.0, 0.0, 0.0]  # keeps what exceeds sqrt(2 * 2)
    assert prox_group(tensor([3.0, 4.0]), 1.0).allclose(tensor([2.4, 3.2]))
    assert prox_group(tensor([0.0, 0.0]), 0.0).equal(tensor([0.0, 0.0]))
    assert project_l2_ball(tensor([3.0, 4.0]), 0.0).equal(tensor([0.0, 0.0]))
    inside = tensor([0.3, -0.1])
    assert project_l2_ball(inside, 1.0).equal(inside)


def test_a_group_of_one_is_l1_and_groups_follow_dim():
    v = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert prox_group(v[..., None], 0.3).squeeze(-1).allclose(prox_l1(v, 0.3))
    assert prox_group(v, 0.3, dim=1).allclose(prox_group(v.movedim(1, -1), 0.3).movedim(-1, 1))
    both = prox_group(v, 0.3, dim=(1, 2))
    assert both.allclose(prox_group(v.flatten(1), 0.3).unflatten(1, (4, 5)))


@pytest.mark.parametrize("prox", [prox_l1, prox_l0, prox_l2_squared, prox_nonneg_l1])
def test_tensor_weights_and_batch_axes_act_entry_by_entry(prox):
    g = torch.Generator().manual_seed(1)
    v = torch.randn(2, 3, 4, dtype=torch.float64, generator=g)
    w = torch.rand(4, dtype=torch.float64, generator=g)
    expected = [
        [[prox(v[i, j, k], w[k].item()) for k in range(4)] for j in range(3)] for i in (0, 1)
    ]
    assert prox(v, w).allclose(torch.tensor(expected, dtype=torch.float64))
    assert prox(v, 0.0).equal(v.clamp(min=0) if prox is prox_nonneg_l1 else v)


def test_group_weights_of_their_own():
    v = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    w = tensor([0.1, 1.0, 9.0])[:, None]
    rows = torch.stack([prox_group(v[i], float(w[i])) for i in range(3)])
    assert prox_group(v, w).allclose(rows)
    assert rows[2].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAPS)
def test_dtype_shape_kept_and_gradients_right(name, dtype):
    prox, _, _ = MAPS[name]
    v = tensor([[3.0, -2.0, 0.7, -0.9], [0.1, 0.2, -0.1, 0.05]]).to(dtype)
    assert prox(v, 0.3).dtype == dtype
    assert prox(v, 0.3).shape == v.shape
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda v: prox(v, 0.3), v.requires_grad_())
    assert prox(torch.zeros(4, dtype=dtype, requires_grad=True), 0.3).isfinite().all()


def test_gradient_with_respect_to_the_weight():
    v, w = tensor([3.0, -2.0, 0.5]), tensor([0.5, 1.0, 0.7]).requires_grad_()
    for prox in (prox_l1, prox_l2_squared, prox_nonneg_l1):
        assert torch.autograd.gradcheck(lambda w, prox=prox: prox(v, w), w)
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    prox_group(zero, 0.5).sum().backward()
    assert zero.grad.equal(torch.zeros(2, 3, dtype=torch.float64))


@pytest.fixture
def unchecked_types():
    """The messages that users see: annotations are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: prox_l1(v, -0.1), r"weight = -0.1: it must be nonnegative"),
        (lambda v: prox_l1(v, math.nan), r"weight = nan: it must be nonnegative"),
        (lambda v: prox_l0(v, tensor([1.0, -2.0, 0.0])), r"weight = -2.0: it must be nonneg"),
        (
            lambda v: prox_l1(v, torch.ones(4)),
            r"weight of shape \(4,\) does not broadcast to \(3,\)",
        ),
        (lambda v: prox_l1(v, torch.ones(2, 3)), r"weight of shape \(2, 3\) does not broadcast"),
        (lambda v: prox_l1(v, torch.ones(0)), r"weight of shape \(0,\) does not broadcast to \(3,"),
        (lambda v: prox_group(v, torch.ones(3)), r"weight of shape \(3,\) .* \(1,\)"),
        (lambda v: prox_l1(v.long(), 1.0), r"v has dtype torch.int64: a floating-point tensor"),
        (lambda v: prox_l2_squared(v * math.nan, 1.0), r"v of shape \(3,\) contains NaN"),
        (lambda v: prox_nonneg_l1(v, -1.0), r"weight = -1.0"),
        (lambda v: project_box(v, low=1.0, high=0.0), r"low = 1.0, high = 0.0: low must not"),
        (lambda v: project_l2_ball(v, -1.0), r"radius = -1.0: it must be nonnegative"),
        (lambda v: prox_conjugate(prox_l1, v, step=0.0), r"step = 0.0: a positive number"),
    ],
)
def test_bad_input_is_refused_with_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(tensor([1.0, -2.0, 3.0]))


@pytest.mark.parametrize("prox", [prox_l1, prox_l0, prox_l2_squared, prox_nonneg_l1])
def test_an_empty_batch_may_have_an_empty_weight(prox):
    assert prox(torch.zeros(0, 3), torch.zeros(0, 1)).shape == (0, 3)


def test_the_gradient_of_the_ball_is_finite_at_zero():
    v = torch.tensor([[0.0, 0.0], [0.1, 0.1], [3.0, 4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(project_l2_ball(v, 1.0).sum(), v)
    assert torch.equal(gradient[:2], torch.ones(2, 2)) and gradient.isfinite().all()
