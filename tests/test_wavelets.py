"""The transforms against PyWavelets, against their adjoints, and against the theory."""

import importlib.util
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tutorial_lib
from tutorial_lib import filterbank
from tutorial_lib.wavelets import (
    MODES,
    Details,
    dwt,
    filter_bank,
    idwt,
    iswt,
    iswt2,
    max_level,
    ravel_coeffs,
    swt,
    swt2,
    unravel_coeffs,
    wavedec,
    wavedec2,
    waverec,
    waverec2,
)

ALL = pywt.wavelist(kind="discrete")
ORTHONORMAL = [w for w in ALL if w.startswith(("haar", "db", "sym", "coif"))]
SOME = ["haar", "db2", "db4", "sym5", "bior2.2", "rbio3.1", "coif1"]
TOO_DEEP = pytest.mark.filterwarnings("ignore:Level value of")  # PyWavelets' advice


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flat(coeffs):
    """All bands of one transform, one after the other, for either library."""
    for c in coeffs:
        yield from c if isinstance(c, tuple | list) else (c,)


def distance(ours, theirs):
    """Largest difference between two lists of bands of the same shapes."""
    pairs = list(zip(flat(ours), flat(theirs), strict=True))
    assert all(tuple(a.shape) == tuple(b.shape) for a, b in pairs)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def defect(wavelet):
    """The error of one level that the tabulated taps allow, for samples of at most 1.

    Analysis, then synthesis: x convolved with t / 2, plus x with alternating signs convolved with
    a / 2, where t = rec_lo * dec_lo + rec_hi * dec_hi should be 2 delta and the alias a zero.
    """
    dec_lo, dec_hi, rec_lo, rec_hi = pywt.Wavelet(wavelet).filter_bank
    signs = (-1.0) ** np.arange(len(dec_lo))
    t = np.convolve(rec_lo, dec_lo) + np.convolve(rec_hi, dec_hi)
    t[len(dec_lo) - 1] -= 2
    a = np.convolve(rec_lo, dec_lo * signs) + np.convolve(rec_hi, dec_hi * signs)
    return (np.abs(t).sum() + np.abs(a).sum()) / 2


# Against PyWavelets ------------------------------------------------------------------------------


@TOO_DEEP
@pytest.mark.parametrize("wavelet", ["a-c", "d", "e-r", "s"])
@pytest.mark.parametrize("mode", MODES)
def test_equals_pywavelets_for_every_wavelet_and_size(wavelet, mode):
    """wavedec and waverec of arbitrary coefficients, exhaustively in 1-D."""
    first, last = wavelet[0], wavelet[-1]
    for name in (w for w in ALL if first <= w[0] <= last):
        theirs = pywt.Wavelet(name)
        for n in range(1, 41):
            x = normal(n, seed=n)
            try:
                expected = pywt.wavedec(x.numpy(), theirs, mode=mode, level=2)
            except ValueError:  # a level that meets a single sample
                assert mode == "reflect"
                with pytest.raises(ValueError, match="at least 2 samples"):
                    wavedec(x, name, mode=mode, level=2)
                continue
            coeffs = wavedec(x, name, mode=mode, level=2)
            assert distance(coeffs, expected) < 1e-10, (name, n)
            other = [normal(*c.shape, seed=i) for i, c in enumerate(coeffs)]
            expected = pywt.waverec([c.numpy() for c in other], theirs, mode=mode)
            assert distance([waverec(other, name, mode=mode)], [expected]) < 1e-10, (name, n)


@TOO_DEEP
@settings(max_examples=150)
@given(
    wavelet=st.sampled_from(ALL),
    mode=st.sampled_from(MODES),
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    level=st.integers(1, 3),
)
def test_equals_pywavelets_in_2d(wavelet, mode, shape, level):
    """Bands, their names, their order; odd and rectangular sizes; the crop undoes the padding."""
    x = normal(2, *shape)
    try:
        expected = pywt.wavedec2(x.numpy(), wavelet, mode=mode, level=level)
    except ValueError:
        assert mode == "reflect"
        with pytest.raises(ValueError, match="at least 2 samples"):
            wavedec2(x, wavelet, mode=mode, level=level)
        return
    coeffs = wavedec2(x, wavelet, mode=mode, level=level)
    assert distance(coeffs, expected) < 1e-10
    for ours, (horizontal, vertical, diagonal) in zip(coeffs[1:], expected[1:], strict=True):
        assert distance([ours.horizontal], [horizontal]) < 1e-10
        assert distance([ours.vertical], [vertical]) < 1e-10
        assert distance([ours.diagonal], [diagonal]) < 1e-10
    back = waverec2(coeffs, wavelet, mode=mode)
    assert distance([back], [pywt.waverec2(expected, wavelet, mode=mode)]) < 1e-10
    torch.testing.assert_close(
        waverec2(coeffs, wavelet, mode=mode, shape=shape), back[..., : shape[0], : shape[1]]
    )


@pytest.mark.parametrize("mode", MODES)
def test_three_axes_equal_pywavelets(mode):
    x = normal(7, 10, 5)
    for wavelet in SOME:
        expected = pywt.dwtn(x.numpy(), wavelet, mode=mode)
        bands = dwt(x, wavelet, mode=mode, ndim=3)
        assert distance([bands], [np.stack([expected[key] for key in sorted(expected)])]) < 1e-10
        back = idwt(bands, wavelet, mode=mode, ndim=3, shape=(7, 10, 5))
        torch.testing.assert_close(back, x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("wavelet", ALL)
def test_undecimated_equals_pywavelets(wavelet):
    x = normal(2, 24)
    expected = pywt.swt(x.numpy(), wavelet, level=3, trim_approx=True)
    assert distance(swt(x, wavelet, level=3), expected) < 1e-10
    x = normal(8, 12)
    expected = pywt.swt2(x.numpy(), wavelet, level=2, trim_approx=True)
    assert distance(swt2(x, wavelet, level=2), expected) < 1e-10


def test_max_level_and_default_level_are_those_of_pywavelets():
    for wavelet in ALL:
        taps = pywt.Wavelet(wavelet).dec_len
        for size in (*range(1, 140), 256, 1000):
            assert max_level(size, wavelet) == pywt.dwt_max_level(size, taps)
    x = normal(64, 100)
    assert distance(wavedec2(x, "db4"), pywt.wavedec2(x.numpy(), "db4")) < 1e-10
    assert distance(wavedec(x, "db4"), pywt.wavedec(x.numpy(), "db4")) < 1e-10
    assert len(wavedec(normal(5), "db8")) == 1  # too short for one level: the signal itself


def test_a_wavelet_of_ones_own():
    own = pywt.Wavelet("average", [[0.5, 0.5], [-0.5, 0.5], [1.0, 1.0], [1.0, -1.0]])
    x = torch.tensor([1.0, 3.0, 5.0, 11.0])
    torch.testing.assert_close(dwt(x, own), torch.tensor([[2.0, 8.0], [-1.0, -3.0]]))
    torch.testing.assert_close(idwt(dwt(x, own), own), x)


def test_names_of_the_bands():
    edge = torch.zeros(16, 16)
    edge[7:] = 1.0
    level = wavedec2(edge, "haar", level=1)[1]
    assert level.horizontal.abs().max() > 0.5
    assert max(level.vertical.abs().max(), level.diagonal.abs().max()) < 1e-6
    level = wavedec2(edge.mT, "haar", level=1)[1]
    assert level.vertical.abs().max() > 0.5
    assert max(level.horizontal.abs().max(), level.diagonal.abs().max()) < 1e-6


# Perfect reconstruction --------------------------------------------------------------------------


def test_the_tabulated_taps():
    """Every wavelet reconstructs to ten digits but dmey, which is a truncation."""
    assert 5e-3 < defect("dmey") < 1e-2
    assert max(defect(w) for w in ALL if w != "dmey") < 5e-11


@pytest.mark.parametrize("mode", MODES)
def test_perfect_reconstruction(mode):
    """To what the taps allow, for every wavelet; sizes odd, even and shorter than the filter."""
    for wavelet in ALL:
        for n in (2, 5, 16, 37):
            x = normal(n, seed=n)
            back = idwt(dwt(x, wavelet, mode=mode), wavelet, mode=mode, shape=(n,))
            allowed = defect(wavelet) * x.abs().max() + 1e-13
            assert (back - x).abs().max() <= allowed, (wavelet, n)
            longer = idwt(dwt(x, wavelet, mode=mode), wavelet, mode=mode)
            assert longer.shape[-1] == n + n % 2


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (13,), (16,), (7, 5), (1, 11), (12, 17)])
def test_undecimated_reconstructs_at_any_size(shape):
    x = normal(*shape)
    for wavelet in ALL:
        if len(shape) == 1:
            back = iswt(swt(x, wavelet, level=3), wavelet)
        else:
            back = iswt2(swt2(x, wavelet, level=3), wavelet)
        assert (back - x).abs().max() <= (0.2 if wavelet == "dmey" else 2e-9), wavelet


def test_undecimated_holds_every_shift():
    """Level 1 at even positions is the decimated transform, at odd ones that of the shift."""
    x = normal(16)
    c = swt(x, "db3", level=2)
    for shift in (0, 1, 2, 3):
        cA, cD2, cD1 = wavedec(x.roll(-shift), "db3", mode="periodization", level=2)
        torch.testing.assert_close(c[2][shift % 2 :: 2].roll(-(shift // 2)), cD1)
        torch.testing.assert_close(c[1][shift::4], cD2)
        torch.testing.assert_close(c[0][shift::4], cA)
    for ours, shifted in zip(c, swt(x.roll(5), "db3", level=2), strict=True):
        torch.testing.assert_close(ours.roll(5), shifted)


# The backward is the adjoint ---------------------------------------------------------------------


def maps(mode):
    """Every transform as one tensor -> one tensor, with an input."""
    for wavelet, ndim in itertools.product(("haar", "db3", "bior2.2", "rbio3.1"), (1, 2, 3)):
        shape = (9, 6, 5)[:ndim]
        options = {"mode": mode, "ndim": ndim}
        bands = dwt(normal(*shape), wavelet, **options)
        yield (lambda x, w=wavelet, o=options: dwt(x, w, **o)), normal(2, *shape)
        yield (
            lambda c, w=wavelet, o=options, s=shape: idwt(c, w, shape=s, **o),
            normal(2, *bands.shape),
        )
    coeffs, layout = ravel_coeffs(wavedec2(normal(11, 14), "db2", mode=mode, level=2))
    yield lambda x: ravel_coeffs(wavedec2(x, "db2", mode=mode, level=2))[0], normal(11, 14)
    yield lambda c: waverec2(unravel_coeffs(c, layout), "db2", mode=mode, shape=(11, 14)), coeffs
    yield lambda x: ravel_coeffs(swt(x, "db2", level=3))[0], normal(2, 13)
    coeffs, stationary = ravel_coeffs(swt(normal(13), "db2", level=3))
    yield lambda c: iswt(unravel_coeffs(c, stationary), "db2"), coeffs


@pytest.mark.parametrize("mode", MODES)
def test_dot_product_of_every_map_and_of_its_backward(mode):
    """<W x, c> = <x, W^T c> with W^T from autograd; and W^T's own backward is W."""
    for w, x in maps(mode):
        x.requires_grad_()
        y = w(x)
        c = normal(*y.shape, seed=1).requires_grad_()
        (transposed,) = torch.autograd.grad(y, x, c, create_graph=True)
        scale = y.norm() * c.norm()
        assert abs((y * c).sum() - (x * transposed).sum()) < 1e-12 * scale
        v = normal(*x.shape, seed=2)
        (again,) = torch.autograd.grad(transposed, c, v)
        torch.testing.assert_close(again, w(v), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_backward_is_the_transposed_matrix_of_pywavelets(mode):
    for wavelet, n in itertools.product(("haar", "db3", "bior2.2", "rbio1.5"), (4, 7, 12)):
        matrix = torch.tensor(np.concatenate(pywt.dwt(np.eye(n), wavelet, mode=mode, axis=0)))
        x = normal(n).requires_grad_()
        y = dwt(x, wavelet, mode=mode).flatten()
        c = normal(*y.shape)
        torch.testing.assert_close(y, matrix @ x, atol=1e-12, rtol=0)
        (gradient,) = torch.autograd.grad(y, x, c)
        torch.testing.assert_close(gradient, matrix.T @ c, atol=1e-12, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, on loading
@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode):
    """First and second derivatives, backward and forward, against finite differences."""

    def analysis(x):
        return ravel_coeffs(wavedec2(x, "db2", mode=mode, level=1))[0]

    coeffs, layout = ravel_coeffs(wavedec2(normal(4, 3), "db2", mode=mode, level=1))
    for w, x in [
        (analysis, normal(4, 3)),
        (lambda c: waverec2(unravel_coeffs(c, layout), "db2", mode=mode, shape=(4, 3)), coeffs),
        (lambda x: dwt(x, "bior2.2", mode=mode), normal(2, 5)),
        (lambda c: idwt(c, "rbio2.2", mode=mode), normal(2, 4)),
        (lambda x: swt(x, "db2", level=2)[1], normal(5)),
        (lambda c: iswt([c[0], c[1], c[2]], "db2"), normal(3, 5)),
    ]:
        x.requires_grad_()
        assert torch.autograd.gradcheck(w, x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(w, x, fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_saved_for_backward(mode):
    saved = []
    for w, x in maps(mode):
        with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
            y = w(x.requires_grad_())
        assert y.requires_grad
    assert saved == []


# Orthonormal bases, vanishing moments ------------------------------------------------------------


def transposed(w, x, c):
    return torch.autograd.grad(w(x.requires_grad_()), x, c)[0]


def test_orthonormal_with_periodization():
    """The norm is kept, W W^T = I, and the backward is the inverse."""
    for wavelet in ORTHONORMAL:

        def w(x, wavelet=wavelet):
            return ravel_coeffs(wavedec2(x, wavelet, mode="periodization", level=2))

        x = normal(2, 8, 12)
        c, layout = w(x)
        assert c.shape == (2, 96)
        torch.testing.assert_close(c.norm(dim=-1), x.flatten(1).norm(dim=-1), atol=1e-9, rtol=0)
        matrix = w(torch.eye(96, dtype=torch.float64).view(96, 8, 12))[0]
        torch.testing.assert_close(
            matrix @ matrix.T, torch.eye(96, dtype=torch.float64), atol=1e-9, rtol=0
        )
        c = normal(96)
        inverse = waverec2(unravel_coeffs(c, layout), wavelet, mode="periodization")
        backward = transposed(lambda x, w=w: w(x)[0], normal(8, 12), c)
        torch.testing.assert_close(backward, inverse, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("mode", "wavelet", "n", "equal"),
    [
        ("periodization", "db4", 16, True),
        ("zero", "db4", 16, True),
        ("zero", "db4", 17, True),
        ("periodization", "db4", 17, False),
        ("symmetric", "db4", 16, False),
        ("reflect", "db4", 16, False),
        ("periodic", "db4", 16, False),
        ("zero", "bior2.2", 16, False),
        ("periodization", "bior2.2", 16, False),
    ],
)
def test_where_the_backward_is_the_inverse(mode, wavelet, n, equal):
    """Orthogonal filters in zero mode, or periodized at even length: nowhere else."""
    c = normal(*dwt(normal(n), wavelet, mode=mode).shape)
    backward = transposed(lambda x: dwt(x, wavelet, mode=mode), normal(n), c)
    inverse = idwt(c, wavelet, mode=mode, shape=(n,))
    if equal:
        torch.testing.assert_close(backward, inverse, atol=1e-10, rtol=0)
    else:
        assert (backward - inverse).abs().max() > 1e-2


def test_vanishing_moments():
    """The details of a polynomial of degree < N vanish away from the border; of degree N not."""
    t = torch.linspace(-1, 1, 300, dtype=torch.float64)
    for wavelet in (f"{family}{n}" for family in ("db", "sym", "coif") for n in range(2, 11)):
        moments, taps = pywt.Wavelet(wavelet).vanishing_moments_psi, pywt.Wavelet(wavelet).dec_len
        powers = torch.stack([t**degree for degree in range(moments + 1)])
        details = dwt(powers, wavelet)[:, 1, taps // 2 : -taps // 2].abs().amax(-1)
        assert details[:moments].max() < 1e-10, wavelet
        if moments < 5:  # t**degree is of the order of (2/300)**degree over one filter
            assert details[moments] > 1e3 * details[:moments].max(), wavelet


# Number formats, batches -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_float32_is_kept_and_agrees_with_float64(mode):
    x = normal(3, 33, 20)
    for wavelet in SOME:
        single = wavedec2(x.float(), wavelet, mode=mode, level=2)
        double = wavedec2(x, wavelet, mode=mode, level=2)
        for a, b in zip(flat(single), flat(double), strict=True):
            assert a.dtype == torch.float32
            assert b.dtype == torch.float64
            torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=0)
        back = waverec2(single, wavelet, mode=mode, shape=(33, 20))
        assert back.dtype == torch.float32
        torch.testing.assert_close(back, x.float(), atol=2e-5, rtol=0)
    assert {c.dtype for c in flat(swt2(x.float(), "db2", level=2))} == {torch.float32}
    assert iswt2(swt2(x.float(), "db2", level=2), "db2").dtype == torch.float32


def test_batch_equals_one_by_one():
    x = normal(2, 3, 9, 14)
    forms = {
        "wavedec2": lambda x: wavedec2(x, "db3", level=2),
        "wavedec": lambda x: wavedec(x, "db3", mode="reflect", level=1),
        "swt2": lambda x: swt2(x, "bior2.2", level=2),
        "dwt": lambda x: [dwt(x, "db2", ndim=2)],
        "there and back": lambda x: [waverec2(wavedec2(x, "db2", level=1), "db2")],
    }
    for name, w in forms.items():
        for i, j in itertools.product(range(2), range(3)):
            assert distance([c[i, j] for c in flat(w(x))], w(x[i, j])) < 1e-14, name
    assert wavedec2(x[:0], "haar", level=1)[0].shape == (0, 3, 5, 7)


def test_layout_in_memory_does_not_matter():
    x = normal(12, 10)
    assert distance(wavedec2(x.T, "db2", level=1), wavedec2(x.T.contiguous(), "db2", level=1)) == 0
    assert (
        distance(wavedec(x[:, ::2], "db2", level=1), wavedec(x[:, ::2].clone(), "db2", level=1))
        == 0
    )
    every = x.clone()
    wavedec2(every, "db2", level=2)
    assert torch.equal(every, x)


def test_large_batches_go_in_slabs(monkeypatch):
    """The result and the gradient are those of the images one at a time."""
    x = normal(3, 4, 32, 24, dtype=torch.float32)
    whole, layout = ravel_coeffs(wavedec2(x, "db4", level=2))
    c = normal(*whole.shape, dtype=torch.float32)
    gradient = transposed(lambda x: ravel_coeffs(wavedec2(x, "db4", level=2))[0], x.clone(), c)
    back = waverec2(unravel_coeffs(whole, layout), "db4")
    assert x.numel() < filterbank.SLAB
    for slab in (1, 32 * 24, 5 * 32 * 24):
        monkeypatch.setattr(filterbank, "SLAB", slab)
        monkeypatch.setattr(filterbank, "ALONE", slab)
        parts = ravel_coeffs(wavedec2(x, "db4", level=2))[0]
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
        parts = waverec2(unravel_coeffs(whole, layout), "db4")
        torch.testing.assert_close(parts, back, atol=1e-6, rtol=0)
        parts = transposed(lambda x: ravel_coeffs(wavedec2(x, "db4", level=2))[0], x.clone(), c)
        torch.testing.assert_close(parts, gradient, atol=1e-6, rtol=0)


@pytest.mark.parametrize("wavelet", ["haar", "db4"])
def test_autocast_is_not_followed(wavelet):
    """Reconstruction to eight bits of mantissa would be none."""
    x = normal(3, 32, 24, dtype=torch.float32)
    expected = dwt(x, wavelet, ndim=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dwt(x, wavelet, ndim=2), expected)
        back = idwt(expected, wavelet, ndim=2)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def test_a_batch_larger_than_a_slab():
    x = normal(5, 9, 128, 128, dtype=torch.float32)
    assert x.numel() > filterbank.SLAB
    bands = dwt(x, "db2", ndim=2)
    torch.testing.assert_close(bands[4, 8], dwt(x[4, 8], "db2", ndim=2), atol=1e-6, rtol=0)
    torch.testing.assert_close(idwt(bands, "db2", ndim=2), x, atol=1e-5, rtol=0)


# Coefficients as one vector ----------------------------------------------------------------------


def test_ravel_round_trip():
    x = normal(2, 3, 21, 14)
    for coeffs in (
        wavedec(x, "db2", level=2),
        wavedec2(x, "db2", level=2),
        swt(x, "db2", level=2),
        swt2(x, "db2", level=2),
    ):
        vector, layout = ravel_coeffs(coeffs)
        hash(layout)
        assert vector.shape[:-1] == coeffs[0].shape[: -len(layout[0])]
        n = math.prod(layout[0])
        torch.testing.assert_close(vector[..., :n], coeffs[0].flatten(-len(layout[0])))
        back = unravel_coeffs(vector, layout)
        assert distance(back, coeffs) == 0
        assert [type(level) for level in back] == [type(level) for level in coeffs]
    two_d, layout = ravel_coeffs(wavedec2(x, "haar", level=1))
    finest = unravel_coeffs(two_d, layout)[-1]
    assert isinstance(finest, Details)
    torch.testing.assert_close(two_d[..., -77:], finest.diagonal.flatten(-2))


# Refusals ----------------------------------------------------------------------------------------


def plain():
    """The module as a user runs it: another copy, whose annotations nothing checks."""
    path = Path(tutorial_lib.__file__)
    spec = importlib.util.spec_from_file_location(
        "plain_lib", path, submodule_search_locations=[str(path.parent)]
    )
    sys.modules["plain_lib"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["plain_lib"])
    return importlib.import_module("plain_lib.wavelets")


P = plain()
X = torch.zeros(6, 10)
HOLE = X.clone()
HOLE[3, 4] = torch.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: P.dwt(X, "db39"),
            r"unknown wavelet 'db39' \(did you mean .*db38.*\): allowed are",
        ),
        (lambda: P.swt(X, "coiff3", level=1), r"unknown wavelet 'coiff3' \(did you mean coif3"),
        (lambda: P.wavedec(X, "zzz"), r"unknown wavelet 'zzz': allowed are .*haar, db1-db38"),
        (lambda: P.max_level(8, "mexh"), "unknown wavelet 'mexh'"),
        (lambda: P.max_level(-3, "haar"), "size = -3: a whole number of at least 1"),
        (lambda: P.filter_bank(3), "unknown wavelet 3"),
        (lambda: P.waverec([X], "foo"), "unknown wavelet 'foo'"),
        (lambda: P.waverec([], "haar"), r"coeffs = \[\]: a tensor, then a tensor a level, is need"),
        (lambda: P.waverec2([], "haar"), r"coeffs = \[\]: a tensor, then three tensors a level"),
        (lambda: P.iswt([], "haar"), r"coeffs = \[\]: a tensor, then a tensor a level"),
        (lambda: P.iswt2([], "haar"), r"coeffs = \[\]: a tensor, then three tensors a level"),
        (lambda: P.ravel_coeffs([]), r"coeffs = \[\]: a tensor"),
        (lambda: P.ravel_coeffs([X, (X, X)]), r"coeffs = \[Tensor, tuple\]: .* three tensors"),
        (
            lambda: P.waverec(P.wavedec2(X, "haar", level=1), "haar"),
            r"coeffs = \[Tensor, Details\]: a tensor, then a tensor a level",
        ),
        (
            lambda: P.waverec2(P.wavedec(X, "haar", level=2), "haar"),
            r"coeffs = \[Tensor, Tensor, Tensor\]: a tensor, then three tensors a level",
        ),
        (
            lambda: P.iswt(P.swt2(X, "haar", level=1), "haar"),
            r"coeffs = \[Tensor, Details\]: a tensor, then a tensor a level",
        ),
        (
            lambda: P.iswt2(P.swt(X, "haar", level=1), "haar"),
            r"coeffs = \[Tensor, Tensor\]: a tensor, then three tensors a level",
        ),
        (lambda: P.waverec2([X, (X, X)], "haar"), r"coeffs = \[Tensor, tuple\]: .* three tensors"),
        (lambda: P.waverec([X.numpy()], "haar"), r"coeffs = \[ndarray\]: a tensor"),
        (lambda: P.dwt(X, "haar", mode="constant"), "unknown mode 'constant': .*zero, symmetric"),
        (lambda: P.waverec([X], "haar", mode="same"), "unknown mode 'same'"),
        (lambda: P.wavedec(X, "haar", level=0), "level = 0: a whole number of at least 1"),
        (lambda: P.wavedec2(X, "haar", level=-1), "level = -1"),
        (lambda: P.wavedec2(X, "haar", level=1.5), "level = 1.5"),
        (lambda: P.swt2(X, "haar", level=0), "level = 0"),
        (lambda: P.swt(X, "haar", level=None), "level = None: a whole number"),
        (lambda: P.dwt(X, "haar", ndim=0), "ndim = 0: at least one axis"),
        (lambda: P.dwt(X[:, :0], "haar"), r"shape \(6, 0\) has an empty axis"),
        (lambda: P.wavedec2(X[:0], "haar"), r"shape \(0, 10\) has an empty axis"),
        (lambda: P.swt2(X[:0], "haar", level=1), "empty axis"),
        (lambda: P.dwt(HOLE, "haar"), r"shape \(6, 10\) contains NaN"),
        (lambda: P.wavedec2(HOLE, "haar"), "contains NaN"),
        (lambda: P.swt(HOLE, "haar", level=1), "contains NaN"),
        (lambda: P.idwt(HOLE[2:4], "haar"), "contains NaN"),
        (lambda: P.iswt2([HOLE], "haar"), "contains NaN"),
        (lambda: P.dwt(torch.arange(8), "haar"), "dtype torch.int64: a floating-point tensor"),
        (lambda: P.wavedec2(X.bool(), "haar"), "dtype torch.bool"),
        (lambda: P.swt(X.to(torch.complex64), "haar", level=1), "dtype torch.complex64"),
        (lambda: P.wavedec2(X[0], "haar"), r"shape \(10,\) has fewer than 2 axes"),
        (lambda: P.dwt(X, "haar", ndim=3), r"shape \(6, 10\) has fewer than 3 axes"),
        (lambda: P.wavedec(torch.tensor(1.0), "haar"), r"shape \(\) has fewer than 1 axes"),
        (lambda: P.idwt(X, "haar"), r"shape \(6, 10\): axis -2 must hold 2\*\*1 bands"),
        (lambda: P.idwt(X[:2, :2], "db8"), r"shape \(2, 2\) are too short for 16 taps"),
        (lambda: P.idwt(X[:2], "haar", shape=(18,)), r"shape \(18,\) .* that of \(20,\) or one"),
        (lambda: P.idwt(X[:2], "haar", shape=(20, 20)), r"shape \(20, 20\) is not that of"),
        (lambda: P.waverec2([X], "haar", shape=(6, 8)), r"shape \(6, 8\) is not that of"),
        (
            lambda: P.waverec2(P.wavedec2(X, "db4", level=2), "haar"),
            r"detail bands of shape \(6, 8\) do not follow .* shape \(12, 14\): were they made",
        ),
        (lambda: P.waverec([X, X[:, :5]], "haar"), r"detail bands of shape \(6, 5\) do not follow"),
        (lambda: P.dwt(X[:1, :1], "db2", mode="reflect"), "at least 2 samples along each axis"),
        (
            lambda: P.unravel_coeffs(torch.zeros(2, 3), ((2,), (2,))),
            r"coefficients of shape \(2, 3\): the last axis must be 4",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_level_may_be_a_whole_number_of_numpy():
    x = normal(8, 8)
    for transform in (P.wavedec2, P.swt2):
        ours = transform(x, "haar", level=np.int64(2))
        assert distance(ours, transform(x, "haar", level=2)) == 0


def test_infinity_passes():
    """Only NaN is refused: an infinite sample makes the coefficients that see it infinite."""
    bands = dwt(torch.tensor([1.0, torch.inf, 2.0, 2.0]), "haar")
    assert not bands[:, 0].isfinite().any()
    assert bands[:, 1].isfinite().all()
    torch.testing.assert_close(
        dwt(torch.tensor([torch.inf, 0.0, -torch.inf, 0.0]), "haar")[0],
        torch.tensor([torch.inf, -torch.inf]),
    )


def test_filters_are_those_of_pywavelets():
    for wavelet in ALL:
        for ours, theirs in zip(
            filter_bank(wavelet), pywt.Wavelet(wavelet).filter_bank, strict=True
        ):
            assert ours.dtype == torch.float64
            assert ours.tolist() == list(theirs)
