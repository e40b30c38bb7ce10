"""Operators: exact adjoints, also backwards; fused grams; certified norms; clear refusals."""

import math

import jaxtyping
import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve

from tutorial_lib.operators import (
    LinearOperator,
    NotConvergedWarning,
    blur,
    identity,
    mask,
    matrix,
    operator_norm,
    subsample,
    wavelet_synthesis,
)
from tutorial_lib.wavelets import ravel_coeffs, unravel_coeffs, wavedec, wavedec2, waverec2


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def keep(*shape):
    return randn(*shape, seed=5) > 0


OPERATORS = {
    "identity": lambda: identity((3, 5)),
    "matrix wide": lambda: matrix(randn(4, 9)),
    "matrix tall": lambda: matrix(randn(9, 4)),
    "mask": lambda: mask(keep(6, 7)),
    "mask real": lambda: mask(randn(6, 7)),
    "subsample": lambda: subsample((7, 8), factor=(3, 2)),
    "subsample 3-D": lambda: subsample((5, 4, 6), factor=2),
    "blur": lambda: blur(randn(3, 4), (8, 9)),
    "blur whole": lambda: blur(randn(8, 9), (8, 9)),
    "blur 1-D": lambda: blur(randn(4), (11,)),
    "blur 3-D": lambda: blur(randn(2, 3, 2), (5, 4, 6)),
    "blur padded": lambda: blur(randn(3, 4), (8, 9), boundary="padded"),
    "blur padded 1-D": lambda: blur(randn(11), (11,), boundary="padded"),
    "haar": lambda: wavelet_synthesis((8, 12), wavelet="haar", level=2),
    "haar 1-D": lambda: wavelet_synthesis((24,), wavelet="haar", level=3),
    "haar symmetric, odd": lambda: wavelet_synthesis(
        (9, 7), wavelet="haar", level=2, mode="symmetric"
    ),
    "db4": lambda: wavelet_synthesis((8, 16), wavelet="db4", level=2),
    "bior4.4": lambda: wavelet_synthesis((16, 8), wavelet="bior4.4", level=2),
    "bior2.2 1-D": lambda: wavelet_synthesis((16,), wavelet="bior2.2", level=1),
    "db3 symmetric, odd": lambda: wavelet_synthesis(
        (9, 14), wavelet="db3", level=2, mode="symmetric"
    ),
    "sym4 1-D reflect": lambda: wavelet_synthesis((21,), wavelet="sym4", level=2, mode="reflect"),
    "composed": lambda: (
        blur(randn(3, 3), (8, 8)) @ wavelet_synthesis((8, 8), wavelet="db2", level=2)
    ),
    "three composed": lambda: (
        subsample((8, 8), factor=2)
        @ blur(randn(3, 3), (8, 8), boundary="padded")
        @ wavelet_synthesis((8, 8), wavelet="haar", level=1)
    ),
    "transposed": lambda: (mask(keep(8, 8)) @ blur(randn(3, 3), (8, 8))).T,
}
every = pytest.mark.parametrize("name", OPERATORS)


def dense(A):
    """The matrix of A, (n_out, n_in)."""
    n = math.prod(A.shape_in)
    return A(torch.eye(n, dtype=torch.float64).reshape(n, *A.shape_in)).reshape(n, -1).mT


@every
def test_dot_product(name):
    """<A x, y> = <x, A^T y>, over two batch axes at once."""
    A = OPERATORS[name]()
    x, y = randn(2, 3, *A.shape_in, seed=1), randn(2, 3, *A.shape_out, seed=2)
    assert A(x).shape == y.shape
    assert A.adjoint(y).shape == x.shape
    assert torch.isclose((A(x) * y).sum(), (x * A.adjoint(y)).sum(), rtol=1e-12)


@every
def test_the_backward_of_each_map_is_its_exact_adjoint(name):
    A = OPERATORS[name]()
    maps = (A, A.adjoint), (A.adjoint, A), (A.gram, A.gram)
    for forward, adjoint in maps:
        shape = A.shape_out if forward is A.adjoint else A.shape_in
        x = randn(2, *shape, seed=1).requires_grad_()
        out = forward(x)
        y = randn(*out.shape, seed=2)
        (gradient,) = torch.autograd.grad(out, x, y, create_graph=True)
        assert torch.allclose(gradient, adjoint(y), atol=1e-12)
    x = randn(*A.shape_in).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: A(x).square(), x, fast_mode=True)


@every
def test_gram_is_the_adjoint_after_the_map(name):
    A = OPERATORS[name]()
    x = randn(3, *A.shape_in)
    assert torch.allclose(A.gram(x), A.adjoint(A(x)), atol=1e-11)


@every
def test_a_batch_is_its_elements_and_the_transpose_undoes_itself(name):
    A = OPERATORS[name]()
    x = randn(2, 3, *A.shape_in)
    assert torch.allclose(A(x)[1, 2], A(x[1, 2]), atol=1e-13)
    assert torch.equal(A.T.T(x), A(x))
    assert torch.equal(A.T.adjoint(x), A(x))
    assert (A.T.shape_in, A.T.shape_out) == (A.shape_out, A.shape_in)


@every
def test_norm_is_that_of_the_dense_matrix(name):
    A = OPERATORS[name]()
    norm = operator_norm(A if A.dtype else A @ mask(torch.ones(A.shape_in).double()), rtol=1e-4)
    exact = torch.linalg.matrix_norm(dense(A), 2).item()
    assert norm.converged
    assert exact * (1 - 1e-4) <= norm.value <= exact * (1 + 1e-12)


def test_composition_is_the_product_of_matrices():
    A, B = matrix(randn(3, 4)), matrix(randn(4, 6, seed=1))
    assert torch.allclose(dense(A @ B), dense(A) @ dense(B))
    W = wavelet_synthesis((8, 8), wavelet="haar", level=2)
    assert (blur(randn(3, 3), (8, 8)) @ W).layout == W.layout == ((2, 2), (2, 2), (4, 4))


@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (4, 3), (2, 5), (7, 6)])
def test_blur_is_convolution_centred_on_half_the_kernel(sizes):
    kernel, x = randn(*sizes), randn(7, 9, seed=1)
    c = [k // 2 for k in sizes]
    full = torch.from_numpy(convolve(x.numpy(), kernel.numpy(), mode="full"))
    padded = blur(kernel, (7, 9), boundary="padded")(x)
    assert torch.allclose(padded, full[c[0] : c[0] + 7, c[1] : c[1] + 9])
    wrapped = sum(
        kernel[i, j] * x.roll((i - c[0], j - c[1]), (0, 1))
        for i in range(sizes[0])
        for j in range(sizes[1])
    )
    assert torch.allclose(blur(kernel, (7, 9))(x), wrapped)


def test_boundary_has_an_effect_at_the_border_only():
    kernel, x = torch.full((3, 3), 1 / 9), torch.ones(8, 8)
    circular, padded = (blur(kernel, (8, 8), boundary=b)(x) for b in ("circular", "padded"))
    assert torch.allclose(circular, x)
    assert torch.allclose(padded[1:-1, 1:-1], x[1:-1, 1:-1])
    assert padded[0].max() < 0.7


def test_blur_is_differentiable_in_its_kernel_and_matrix_in_its_matrix():
    x = randn(2, 5, 6)
    for boundary in ("circular", "padded"):
        kernel = randn(3, 2).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda k, b=boundary: blur(k, (5, 6), boundary=b).gram(x), kernel
        )
    assert torch.autograd.gradcheck(lambda M: matrix(M).gram(x), randn(4, 6).requires_grad_())


def test_mask_and_subsample_select():
    x = torch.arange(12.0).reshape(3, 4)
    assert mask(x > 5)(x).equal(torch.where(x > 5, x, 0))
    S = subsample((3, 4), factor=2)
    assert S(x).tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert S(S.adjoint(S(x))).equal(S(x))


@pytest.mark.parametrize(
    ("shape", "wavelet", "mode"),
    [
        ((16, 24), "db3", "periodization"),
        ((16, 24), "haar", "periodization"),
        ((13, 10), "bior4.4", "symmetric"),
        ((13, 10), "db1", "zero"),
        ((16, 16), "rbio1.1", "periodization"),
    ],
)
def test_wavelet_synthesis_inverts_the_transform_of_the_package(shape, wavelet, mode):
    W = wavelet_synthesis(shape, wavelet=wavelet, level=2, mode=mode)
    x = randn(2, *shape)
    flat, layout = ravel_coeffs(wavedec2(x, wavelet, level=2, mode=mode))
    assert layout == W.layout
    assert torch.allclose(W(flat), x)
    other = randn(*flat.shape)  # not the transform of anything, where the transform is redundant
    expected = waverec2(unravel_coeffs(other, layout), wavelet, mode=mode, shape=shape)
    assert torch.allclose(W(other), expected)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db8", "sym5", "sym20", "coif2"])
def test_orthogonal_wavelets_with_periodization_are_orthonormal(wavelet):
    W = wavelet_synthesis((16, 8), wavelet=wavelet, level=2)
    x = randn(16, 8)
    flat, _ = ravel_coeffs(wavedec2(x, wavelet, level=2, mode="periodization"))
    assert torch.allclose(W.adjoint(x), flat, atol=1e-9)
    assert W.gram(flat) is flat
    assert torch.allclose(dense(W).mT @ dense(W), torch.eye(128).double(), atol=1e-8)
    line = wavelet_synthesis((32,), wavelet=wavelet, level=2)
    y = randn(32)
    coeffs = wavedec(y, wavelet, level=2, mode="periodization")
    assert torch.allclose(line.adjoint(y), ravel_coeffs(coeffs)[0], atol=1e-9)


@pytest.mark.parametrize("wavelet", ["bior2.2", "rbio3.1", "dmey", "bior4.4"])
def test_other_wavelets_do_not_pass_for_orthonormal(wavelet):
    W = wavelet_synthesis((64,), wavelet=wavelet, level=1)
    a = randn(64)
    assert not torch.allclose(W.gram(a), a, atol=1e-6)
    assert torch.allclose(W.gram(a), W.adjoint(W(a)))


def test_coefficients_are_those_of_pywavelets():
    x = randn(32, 16)
    W = wavelet_synthesis((32, 16), wavelet="db2", level=2)
    approx, *details = pywt.wavedec2(x.numpy(), "db2", mode="periodization", level=2)
    flat = np.concatenate([approx.ravel()] + [band.ravel() for d in details for band in d])
    assert np.allclose(W.adjoint(x), flat)
    assert math.prod(W.layout[0]) == approx.size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_that_of_the_kernel_and_of_the_input(dtype):
    A = blur(randn(3, 3, dtype=dtype), (8, 8)) @ wavelet_synthesis((8, 8), wavelet="haar", level=1)
    assert (A.dtype, A.device) == (dtype, torch.device("cpu"))
    x = randn(64, dtype=dtype)
    assert {A(x).dtype, A.gram(x).dtype, A.adjoint(A(x)).dtype} == {dtype}
    W = wavelet_synthesis((8, 8), wavelet="db2", level=1)
    assert W(x).dtype == dtype
    assert mask(torch.ones(64) > 0)(x).dtype == dtype


# The norm ----------------------------------------------------------------------------------------


def diagonal(values):
    d = torch.as_tensor(values, dtype=torch.float64)
    n = len(d)
    return LinearOperator(lambda x: d * x, lambda y: d * y, (n,), (n,), dtype=torch.float64)


@pytest.mark.parametrize("rtol", [0.2, 0.05, 0.01])
@pytest.mark.parametrize(
    "spectrum",
    [
        torch.linspace(0, 1, 3000),
        torch.cat([torch.full((2999,), 0.9), torch.ones(1)]),  # the first one nearly hidden
        torch.cat([torch.full((2999,), 0.3), torch.ones(1)]),
        torch.linspace(0, 1, 3000) ** 0.1,
        torch.exp(-(torch.linspace(-3, 3, 3000) ** 2)),
    ],
)
def test_the_certificate_of_the_norm_holds(spectrum, rtol):
    """Within rtol for every one of 20 starts: theory allows one failure in a thousand."""
    values = [operator_norm(diagonal(spectrum), rtol=rtol, seed=seed).value for seed in range(20)]
    assert min(values) >= (1 - rtol) * spectrum.max()
    assert max(values) <= spectrum.max() * (1 + 1e-9)


def test_plain_power_iteration_is_never_better():
    A = diagonal(torch.linspace(0, 1, 500))
    norm = operator_norm(A, rtol=1e-2, seed=3)
    v = randn(500, seed=3)
    for estimate in norm.history:
        quotient = A(v / v.norm()).norm()  # the square root of the Rayleigh quotient of v
        assert quotient <= estimate + 1e-12
        v = A.gram(v / v.norm())
    assert norm.value > quotient + 1e-3


@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_norm_of_any_small_diagonal(values):
    norm = operator_norm(diagonal(values), rtol=1e-6)
    assert norm.converged
    assert norm.value == pytest.approx(max(abs(v) for v in values), rel=1e-6, abs=1e-7)
    assert norm.steps == len(norm.history) <= len(values)
    assert (norm.history.diff() >= -1e-12 * norm.value).all()


def test_norm_seeds_and_tolerance_have_an_effect():
    A = diagonal(torch.linspace(0, 1, 400))
    assert operator_norm(A, seed=1).value == operator_norm(A, seed=1).value
    assert operator_norm(A, seed=1).value != operator_norm(A, seed=2).value
    assert operator_norm(A, rtol=1e-3).steps > operator_norm(A, rtol=1e-1).steps


def test_norm_of_zero_and_not_converged():
    zero = operator_norm(diagonal([0.0, 0.0]))
    assert (zero.value, zero.converged) == (0.0, True)
    with pytest.warns(
        NotConvergedWarning, match=r"steps are needed for rtol = 0.001, max_steps = 3"
    ):
        norm = operator_norm(diagonal(torch.linspace(0, 1, 100)), rtol=1e-3, max_steps=3)
    assert (norm.steps, norm.converged) == (3, False)


# What is refused ---------------------------------------------------------------------------------


@pytest.fixture
def unchecked_types():
    """The messages that users see: annotations are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


BLUR = blur(torch.ones(3, 3), (8, 8))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: blur(torch.ones(9, 3), (8, 8)), r"kernel of shape \(9, 3\): .* at most \(8, 8\)"),
        (lambda: blur(torch.ones(3, 0), (8, 8)), r"kernel of shape \(3, 0\): at least 1"),
        (lambda: blur(torch.ones(3), (8, 8)), r"kernel of shape \(3,\) has not as many axes"),
        (lambda: blur(torch.full((3, 3), math.nan), (8, 8)), r"kernel of shape \(3, 3\) contains"),
        (lambda: blur(torch.ones(3, 3).int(), (8, 8)), r"kernel has dtype torch.int32"),
        (lambda: blur(torch.ones(3), (8,), boundary="wrap"), r"'wrap': allowed are circular, padd"),
        (lambda: BLUR(torch.ones(8, 7)), r"forward takes \(\*batch, \*\(8, 8\)\), got .* \(8, 7\)"),
        (lambda: BLUR.adjoint(torch.ones(8)), r"adjoint takes .* got shape \(8,\)"),
        (lambda: BLUR.gram(torch.ones(2, 8, 9)), r"gram takes .* got shape \(2, 8, 9\)"),
        (lambda: BLUR(torch.ones(8, 8).double()), r"takes torch.float32, got dtype torch.float64"),
        (lambda: BLUR(torch.ones(8, 8, device="meta")), r"tensors on cpu, got one on meta"),
        (
            lambda: identity((2,))(torch.ones(2).int()),
            r"takes floating point, got dtype torch.int32",
        ),
        (lambda: identity((4, 4)) @ BLUR, r"left operator takes \(4, 4\), the right .* \(8, 8\)"),
        (lambda: BLUR @ mask(torch.ones(8, 8).double()), r"left operator holds torch.float32, not"),
        (lambda: identity(()), r"shape \(\): at least one axis"),
        (lambda: identity((3, 0)), r"shape \(3, 0\): .* none empty"),
        (lambda: matrix(torch.ones(3)), r"M of shape \(3,\): a matrix"),
        (lambda: matrix(torch.full((2, 2), math.nan)), r"M of shape \(2, 2\) contains NaN"),
        (lambda: mask(torch.ones(3).long()), r"keep has dtype torch.int64"),
        (lambda: mask(torch.full((2,), math.nan)), r"keep of shape \(2,\) contains NaN"),
        (lambda: subsample((8, 8), factor=0), r"factor = 0: .* at least 1"),
        (lambda: subsample((8, 8), factor=1.5), r"factor = 1.5: a whole number of at least 1"),
        (lambda: subsample((8, 8), factor=(2, 0.5)), r"factor = \(2, 0.5\): a whole number"),
        (lambda: subsample((8, 8), factor=(2, 2, 2)), r"factor = \(2, 2, 2\).* axis of \(8, 8\)"),
        (lambda: wavelet_synthesis((8, 8), wavelet="hat", level=1), r"unknown wavelet 'hat'"),
        (lambda: wavelet_synthesis((8, 8), wavelet="haar", level=0), r"level = 0"),
        (lambda: wavelet_synthesis((8, 8), wavelet="haar", level=None), r"level = None: a whole"),
        (lambda: wavelet_synthesis((8, 8), wavelet="haar", level=1, mode="wrap"), r"mode 'wrap'"),
        (
            lambda: wavelet_synthesis((8, 12), wavelet="db2", level=3),
            r"\(8, 12\): .* 2\*\*level = 8",
        ),
        (lambda: wavelet_synthesis((2, 8, 8), wavelet="haar", level=1), r"\(n,\) or \(h, w\)"),
        (lambda: operator_norm(BLUR, rtol=0.0), r"rtol = 0.0: a number between 0 and 1"),
        (lambda: operator_norm(BLUR, max_steps=0), r"max_steps = 0: at least 1"),
        (lambda: operator_norm(diagonal([math.inf, 1.0])), r"is not finite: <v, A\^T A v> = "),
    ],
)
def test_bad_input_is_refused_with_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@every
def test_an_empty_batch_stays_empty(name):
    A = OPERATORS[name]()
    for forward, shape in ((A, A.shape_in), (A.adjoint, A.shape_out), (A.gram, A.shape_in)):
        out = forward(torch.zeros(0, *shape, dtype=torch.float64))
        assert out.shape == (0, *forward(torch.zeros(shape, dtype=torch.float64)).shape)


@pytest.mark.usefixtures("unchecked_types")
def test_numpys_whole_numbers_are_taken():
    two = np.int64(2)
    assert subsample((8, 8), factor=two).shape_out == (4, 4)
    assert wavelet_synthesis((8, 8), wavelet="haar", level=two).layout == ((2, 2), (2, 2), (4, 4))


def test_operators_are_frozen():
    with pytest.raises(AttributeError):
        BLUR.shape_in = (4, 4)
