"""The convolutional dictionary: the dense matrix, adjoints, norms, the split, refusals."""

import math

import jaxtyping
import pytest
import torch
from convolutional_cases import bank, dense, each_boundary, each_case, each_method, problem, randn

from tutorial_lib.convolutional import conv_dictionary, conv_norm, split_lowpass
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.convolutional_learning import learn_filters, update_filters
from tutorial_lib.convolutional_shifts import average_shifts, shift_coherence, stack_shifts

FILTERS, IMAGE = bank(2, 1, 3, 3), randn(1, 8, 8)


# The operator ------------------------------------------------------------------------------------


@each_case
@each_boundary
@each_method
def test_equals_the_dense_matrix(case, boundary, method):
    f, y, where = problem(case, boundary)
    M = dense(f, y.shape[1:], **where)
    D = conv_dictionary(f, y.shape[1:], method=method, **where)
    z = randn(2, 3, *D.shape_in)
    assert math.prod(D.shape_in) == M.shape[1]
    assert torch.allclose(D(z).flatten(2), z.flatten(2) @ M.T, atol=1e-12)
    x = randn(2, 3, *D.shape_out)
    assert torch.allclose(D.adjoint(x).flatten(2), x.flatten(2) @ M, atol=1e-12)
    assert torch.allclose(D.gram(z).flatten(2), z.flatten(2) @ (M.T @ M), atol=1e-12)


@each_case
@each_boundary
@each_method
def test_adjoint_and_its_backward(case, boundary, method):
    f, y, where = problem(case, boundary)
    D = conv_dictionary(f, y.shape[1:], method=method, **where)
    z, x = randn(*D.shape_in, seed=3).requires_grad_(), randn(*D.shape_out, seed=4)
    assert torch.isclose((D(z) * x).sum(), (z * D.adjoint(x)).sum())
    (back,) = torch.autograd.grad((D(z) * x).sum(), z)
    assert torch.allclose(back, D.adjoint(x))


@each_boundary
@each_method
@pytest.mark.parametrize("stride", [1, 2])
def test_differentiable_in_the_filters(boundary, method, stride):
    where = {"boundary": boundary, "stride": stride}
    z = randn(2, *conv_dictionary(randn(2, 1, 3, 3), (4, 4), **where).shape_in)

    def image(f):
        D = conv_dictionary(f, (4, 4), method=method, **where)
        return D(z), D.adjoint(D(z))

    assert torch.autograd.gradcheck(image, randn(2, 1, 3, 3, seed=1).requires_grad_())


@each_method
def test_circular_dictionary_moves_with_the_maps(method):
    D = conv_dictionary(bank(3, 2, 4, 4), (8, 12), stride=(2, 3), method=method)
    z = randn(*D.shape_in)
    assert torch.allclose(D(z.roll((1, -2), (-2, -1))), D(z).roll((2, -6), (-2, -1)))


def test_shared_maps_and_maps_that_slide_along_the_spectrum():
    """Four bands as channels of an image, or as one channel of a cube."""
    cube = randn(4, 6, 6)
    shared = conv_dictionary(bank(5, 4, 3, 3), (6, 6))
    assert (shared.shape_in, shared.shape_out) == ((5, 6, 6), (4, 6, 6))
    unshared = conv_dictionary(bank(5, 1, 3, 3, 3), (4, 6, 6))
    assert (unshared.shape_in, unshared.shape_out) == ((5, 4, 6, 6), (1, 4, 6, 6))
    z = randn(5, 6, 6, seed=2)
    for b in range(4):  # each band of the shared model: its own filters, the same maps
        f = bank(5, 4, 3, 3)
        band = conv_dictionary(f[:, b : b + 1], (6, 6))
        assert torch.allclose(shared(z)[b], band(z)[0])
    assert shared.adjoint(cube).shape == (5, 6, 6)
    assert unshared.adjoint(cube[None]).shape == (5, 4, 6, 6)


@each_case
@each_boundary
def test_norm_at_the_actual_size(case, boundary):
    f, y, where = problem(case, boundary)
    true = torch.linalg.matrix_norm(dense(f, y.shape[1:], **where), 2).item()
    norm = conv_norm(f, y.shape[1:], **where)
    if boundary == "circular":
        assert norm == pytest.approx(true, rel=1e-10)
    else:
        assert 0.99 * true <= norm <= true * (1 + 1e-10)


def test_norm_depends_on_size_and_boundary():
    f = bank(4, 1, 5, 5)
    circular = [conv_norm(f, (n, n)) for n in (5, 7, 32)]
    assert len({round(n, 6) for n in circular}) == 3
    assert conv_norm(f, (8, 8), boundary="padded", rtol=1e-6) < conv_norm(f, (32, 32)) * 1.01


# Around the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9,), (6, 7), (1, 5), (4, 5, 6)])
def test_lowpass_is_the_minimiser(shape):
    d = len(shape)
    y = randn(2, *shape)
    low, high = split_lowpass(y, 3.0, dims=d)
    assert torch.allclose(low + high, y)
    x = low.clone().requires_grad_()
    F = (y - x).square().sum() / 2
    for axis in range(-d, 0):
        F = F + 3.0 / 2 * x.diff(dim=axis).square().sum()
    assert torch.autograd.grad(F, x)[0].abs().max() < 1e-12
    assert torch.allclose(low.flatten(1).mean(1), y.flatten(1).mean(1))


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: conv_dictionary(FILTERS, (8,)), r"2 kernel axes, images of shape \(8,\)"),
        (lambda: conv_dictionary(FILTERS, (2, 8)), r"kernel \(3, 3\) is larger than .* \(2, 8\)"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=3), r"no multiple of stride 3"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=4), r"stride = 4: above the kernel"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=0), r"stride = 0"),
        (lambda: conv_dictionary(FILTERS, (8, 8), stride=(1, 2, 1)), r"stride = \(1, 2, 1\)"),
        (lambda: conv_dictionary(FILTERS[0, 0], (8, 8)), r"filters of shape \(3, 3\)"),
        (lambda: conv_dictionary(FILTERS * math.nan, (8, 8)), "filters .*NaN"),
        (lambda: conv_norm(FILTERS, (8, 8), boundary="padded", rtol=0.0), r"rtol = 0.0"),
        (lambda: shift_coherence(0 * FILTERS), r"filter 0 is zero"),
        (lambda: csc_admm(IMAGE, FILTERS, -1.0), r"lam = -1.0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, rho=0.0), r"rho = 0.0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, relax=2.0), r"relax = 2.0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, max_steps=0), r"max_steps = 0"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, rtol=-1.0), r"rtol = -1.0"),
        (lambda: csc_admm(IMAGE[0], FILTERS, 0.1), r"\(8, 8\).*channels"),
        (lambda: csc_admm(IMAGE.float(), FILTERS, 0.1), r"float32"),
        (lambda: csc_admm(IMAGE * math.nan, FILTERS, 0.1), r"y .*NaN"),
        (lambda: csc_admm(IMAGE.expand(2, 8, 8), FILTERS, 0.1), r"do not fit"),
        (lambda: csc_admm(IMAGE, FILTERS, 0.1, z0=randn(2, 7, 8)), r"do not fit"),
        (lambda: update_filters(IMAGE, randn(2, 8, 8), FILTERS, steps=0), r"steps = 0"),
        (lambda: update_filters(IMAGE, randn(3, 8, 8), FILTERS), r"do not fit"),
        (lambda: learn_filters(IMAGE, FILTERS, 0.1, steps=0), r"steps = 0"),
        (lambda: split_lowpass(IMAGE, -1.0), r"weight = -1.0"),
        (lambda: split_lowpass(IMAGE, dims=4), r"dims = 4"),
        (lambda: stack_shifts(IMAGE, 8, boundary="padded"), r"stride = 8.*too small"),
        (lambda: average_shifts(IMAGE, 2, (8, 8)), r"\(1, 8, 8\): \(4, \.\.\., \(8, 8\)\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_words():
    for call in (
        lambda: conv_dictionary(FILTERS, (8, 8), boundary="mirror"),
        lambda: conv_dictionary(FILTERS, (8, 8), method="dense"),
        lambda: stack_shifts(IMAGE, 2, boundary="mirror"),
        lambda: average_shifts(IMAGE, 1, (8, 8), boundary="mirror"),
    ):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            with pytest.raises(ValueError, match="unknown .*: allowed are"):
                call()
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)
    with pytest.raises(TypeError):
        csc_admm(IMAGE, FILTERS, 0.1, max_iter=10)
