"""Equilibrium layers: every gradient against the dense one, and memory."""

import warnings

import pytest
import torch
from contractions import METHODS, contraction, randn, tanh_map

from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Solver, fixed_point
from tutorial_lib.operators import NotConvergedWarning

TIGHT = {"rtol": 1e-13, "max_steps": 2000}


def gradients(gradient, rtol=1e-12, L=0.8, **options):
    """d <c, value> / dW in a flat vector, and the value."""
    W, x, c = contraction(8, L), randn(3, 8, seed=1), randn(3, 8, seed=2)
    W.requires_grad_()
    options = {"rtol": rtol, "max_steps": 3000, **options}
    value, info = equilibrium(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), gradient=gradient, **options
    )
    (c * value).sum().backward()
    return W.grad.flatten(), info


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=0).item()


def saved_bytes(run):
    """Bytes of the distinct tensors that autograd keeps for the backward."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


@METHODS
def test_implicit_gradient_passes_gradcheck(method):
    W, U, x = contraction(5), randn(4, 5, seed=1), randn(2, 4, seed=2)
    inputs = [u.requires_grad_() for u in (W, U, x)]

    def layer(W, U, x):
        f = lambda z: torch.tanh(z @ W + x @ U)  # noqa: E731
        return equilibrium(f, x.new_zeros(2, 5), method=method, **TIGHT).value

    assert torch.autograd.gradcheck(layer, inputs)


def test_implicit_gradient_of_a_tuple_passes_gradcheck():
    W, V = contraction(5), randn(2, 5, seed=1)
    inputs = [u.requires_grad_() for u in (W, V)]

    def layer(W, V):
        def f(state):
            z = torch.cat([state[0].flatten(1), state[1]], 1)
            z = torch.tanh(z @ W + V)
            return z[:, :4].reshape(2, 2, 2), z[:, 4:]

        start = torch.zeros(2, 2, 2).double(), torch.zeros(2, 1).double()
        return equilibrium(f, start, **TIGHT).value

    assert torch.autograd.gradcheck(layer, inputs)


def test_unrolled_gradient_passes_gradcheck_with_and_without_frozen_samples():
    W, x, z0 = contraction(4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    scale = torch.tensor([0.1, 0.6, 1.0]).double()[:, None]
    inputs = [u.requires_grad_() for u in (W, x, z0)]
    for options in ({"rtol": 0.0, "max_steps": 4}, {"rtol": 1e-2}, {"rtol": 0.0, "share": 0.7}):
        options = {"method": "picard", "max_steps": 6, **options}

        def layer(W, x, z0, options=options):
            f = lambda z: torch.tanh(scale * (z @ W) + x)  # noqa: E731
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConvergedWarning)
                return equilibrium(f, z0, gradient="unrolled", **options).value

        assert torch.autograd.gradcheck(layer, inputs)


def test_implicit_equals_the_dense_solve_and_the_unrolled_gradient():
    implicit, info = gradients("implicit")
    unrolled, _ = gradients("unrolled", method="picard")
    assert torch.allclose(implicit, unrolled, atol=1e-9)
    assert info.backward.converged.all()

    W, x, c = contraction(8), randn(3, 8, seed=1), randn(3, 8, seed=2)
    z, _ = fixed_point(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), rtol=1e-14)
    slope = 1 - z.square()
    dense = torch.zeros(8, 8, dtype=torch.float64)
    for z_i, s_i, c_i in zip(z, slope, c, strict=True):
        J = torch.diag(s_i) @ W.mT  # dz'/dz
        w = torch.linalg.solve((torch.eye(8) - J).mT, c_i)
        dense += torch.outer(z_i, s_i * w)
    assert torch.allclose(implicit, dense.flatten(), atol=1e-9)


def test_a_looser_backward_solve_gives_a_worse_gradient():
    exact, _ = gradients("implicit")
    errors = []
    for rtol in (1e-1, 1e-3, 1e-6):
        found, info = gradients("implicit", backward=Solver(rtol=rtol))
        assert info.backward.residual.max() <= rtol
        errors.append(((found - exact).norm() / exact.norm()).item())
    assert errors[0] > 5 * errors[1] > 25 * errors[2] > 0


def test_jfb_and_phantom_gradients_point_towards_the_exact_one():
    exact, _ = gradients("implicit", L=0.95)
    jfb, _ = gradients("jfb", L=0.95)
    one, _ = gradients("phantom", L=0.95, k=1, tau=1.0)
    assert torch.equal(jfb, one)
    cosines = [cosine(jfb, exact)]
    for k in (2, 4, 100):
        phantom, info = gradients("phantom", L=0.95, k=k, tau=0.9)
        cosines.append(cosine(phantom, exact))
        assert info.backward is None
    assert 0 < cosines[0] < cosines[1] < cosines[2] < cosines[3]
    assert torch.allclose(phantom, exact, rtol=1e-3, atol=1e-3)


def test_a_phantom_gradient_is_the_neumann_sum_of_its_formula():
    W, b = contraction(6), randn(2, 6, seed=1)
    b.requires_grad_()
    k, tau = 3, 0.7
    value, _ = equilibrium(
        lambda z: z @ W + b,
        torch.zeros(2, 6).double(),
        gradient="phantom",
        k=k,
        tau=tau,
        rtol=1e-12,
    )
    v = randn(2, 6, seed=3)
    (found,) = torch.autograd.grad(value, b, v)
    damped = tau * W.mT + (1 - tau) * torch.eye(6).double()
    expected = sum(tau * v @ torch.linalg.matrix_power(damped, i) for i in range(k))
    assert torch.allclose(found, expected, atol=1e-12)


def test_value_is_one_application_after_the_state_that_is_described():
    f, _, x = tanh_map()
    z, info = fixed_point(f, torch.zeros_like(x), rtol=1e-3)
    calls = []
    counted = lambda z: calls.append(1) or f(z)  # noqa: E731
    value, same = equilibrium(counted, torch.zeros_like(x), rtol=1e-3)
    assert torch.equal(value, f(z))
    assert torch.equal(same.residual, info.residual)
    assert len(calls) == info.evaluations + 1
    with torch.no_grad():
        assert torch.equal(equilibrium(f, torch.zeros_like(x), rtol=1e-3).value, value)
    plain = {"method": "picard", "rtol": 0.0, "max_steps": 3}
    value, _ = equilibrium(f, torch.zeros_like(x), gradient="unrolled", **plain)
    assert torch.equal(value, f(f(f(torch.zeros_like(x)))))


def test_second_derivatives_of_implicit_are_refused():
    a = torch.tensor(0.5, requires_grad=True)
    value = equilibrium(lambda z: a.exp() * z.cos(), torch.zeros(1, 1)).value
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value.sum(), a, create_graph=True)


def test_the_backward_solve_tells_when_it_fails():
    a = torch.tensor(0.9999, requires_grad=True)
    value, info = equilibrium(
        lambda z: a * z, torch.zeros(1, 1), backward=Solver(method="picard", max_steps=3)
    )
    assert info.backward is None
    with pytest.warns(NotConvergedWarning, match="backward: 1 of 1"):
        value.sum().backward()
    assert info.backward.reason == ["max_steps"]
    assert info.backward.evaluations == 3


def test_maps_without_parameters_or_without_a_state():
    value, _ = equilibrium(torch.cos, torch.ones(1, 1))
    assert value.item() == pytest.approx(0.739, abs=1e-3)
    b = torch.ones(1, 2, requires_grad=True)
    equilibrium(lambda z: 2 * b, torch.zeros(1, 2)).value.sum().backward()
    assert b.grad.tolist() == [[2, 2]]


def test_memory_is_flat_for_implicit_and_linear_for_unrolled():
    W, x = contraction(64, 0.9).requires_grad_(), randn(16, 64, seed=1)
    f = lambda z: torch.tanh(z @ W + x)  # noqa: E731

    def kept(gradient, steps, method="anderson"):
        options = {"method": method, "rtol": 0.0, "max_steps": steps}
        return saved_bytes(
            lambda: equilibrium(f, torch.zeros_like(x), gradient=gradient, **options)
        )

    for gradient in ("implicit", "jfb", "phantom"):
        assert kept(gradient, 5) == kept(gradient, 100) > 0
    unrolled = [kept("unrolled", steps, "picard") for steps in (5, 50, 100)]
    assert unrolled[2] - unrolled[1] == pytest.approx(50 / 45 * (unrolled[1] - unrolled[0]))
    assert unrolled[2] > 15 * kept("implicit", 100)
