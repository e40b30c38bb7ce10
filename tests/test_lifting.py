"""Lifting: invertible whatever the steps do, and equal to the filter banks of PyWavelets."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st

import tutorial_lib
from tutorial_lib.laurent import ACCURATE, PUBLISHED, _factor
from tutorial_lib.lifting import (
    LiftingScheme,
    ilwt,
    ilwt2,
    lift,
    lifting_scheme,
    lwt,
    lwt2,
    merge,
    split,
    unlift,
)
from tutorial_lib.wavelets import dwt, wavedec, wavedec2

ALL = pywt.wavelist(kind="discrete")
BOUNDARIES = ["periodic", "symmetric"]
SYMMETRIC = ["haar", "5/3", "9/7", "bior2.4", "bior2.8", "rbio2.2", "rbio2.6"]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flat(coeffs):
    for c in coeffs:
        yield from c if isinstance(c, tuple | list) else (c,)


def distance(ours, theirs):
    pairs = list(zip(flat(ours), flat(theirs), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


# Any predict, any update ------------------------------------------------------------------------


def test_invertible_whatever_the_steps_are():
    """Signs of a hash, an untrained network, a step that is infinitely steep: exact on integers."""

    def hashed(x):
        return torch.sign(torch.sin(1e6 * x.double())).to(x.dtype) * 7

    network = torch.nn.Sequential(torch.nn.Linear(9, 50), torch.nn.ReLU(), torch.nn.Linear(50, 9))

    def rounded(x):
        with torch.no_grad():
            return (100 * network(x.float())).round().to(x.dtype)

    steps = [(hashed, rounded), (rounded, lambda x: x * x), (lambda x: x.cumsum(-1), hashed)]
    c, d = torch.randint(-99, 99, (2, 4, 9), generator=torch.Generator().manual_seed(0))
    lifted = lift(c, d, steps)
    assert (lifted[0] != c).any() and (lifted[1] != d).any()
    back = unlift(*lifted, steps)
    assert torch.equal(back[0], c) and torch.equal(back[1], d)
    c, d = normal(2, 4, 9).unbind()
    back = unlift(*lift(c, d, steps[:1]), steps[:1])
    torch.testing.assert_close(back, (c, d), atol=1e-12, rtol=0)


def test_lift_by_hand_and_its_order():
    steps = [(lambda c: 2 * c, lambda d: d + 1), (lambda c: c * c, lambda d: -d)]
    c, d = lift(torch.tensor([3.0]), torch.tensor([10.0]), steps)
    # d = 10 - 6 = 4, c = 3 + 5 = 8, d = 4 - 64 = -60, c = 8 + 60 = 68
    assert (c.item(), d.item()) == (68.0, -60.0)
    assert [t.item() for t in unlift(c, d, steps)] == [3.0, 10.0]
    assert torch.equal(lift(c, d, [])[0], c)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_split_is_lazy_and_merge_undoes_it(dim):
    x = normal(5, 4, 7)
    even, odd = split(x, dim=dim)
    assert even.shape[dim] == (x.shape[dim] + 1) // 2
    assert torch.equal(merge(even, odd, dim=dim), x)
    torch.testing.assert_close(even.select(dim, 1), x.select(dim, 2))
    torch.testing.assert_close(odd.select(dim, 0), x.select(dim, 1))
    before = x.clone()
    assert even.data_ptr() == x.data_ptr()
    even.mul_(2)  # in place: x itself changes, and no second array exists
    torch.testing.assert_close(
        x.index_select(dim, torch.tensor([0, 2])),
        2 * before.index_select(dim, torch.tensor([0, 2])),
    )
    assert torch.equal(x.select(dim, 1), before.select(dim, 1))


# Factoring --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wavelet", ALL)
def test_factored_steps_are_the_filter_bank(wavelet):
    """Every wavelet, sizes even, odd and shorter than the filter, one and three levels."""
    allowed = 2e-2 if wavelet == "dmey" else 1e-10
    for n in (1, 2, 3, 7, 16, 33, 128):
        x = normal(2, n, seed=n)
        for level in (1, 3):
            expected = wavedec(x, wavelet, mode="periodization", level=level)
            assert distance(lwt(x, wavelet, level=level), expected) < allowed, (n, level)


def test_low_pass_filters_are_rebuilt():
    """The response to unit impulses, a filter's taps; every factor stays below 25."""
    for wavelet in ALL:
        n = 2 * max(64, pywt.Wavelet(wavelet).dec_len)
        unit = torch.eye(n, dtype=torch.float64)
        lo, hi = lwt(unit, wavelet, level=1)
        expected = dwt(unit, wavelet, mode="periodization").unbind(-2)
        assert (lo - expected[0]).abs().max() < 1.1 * ACCURATE, wavelet
        if wavelet != "dmey":
            assert (hi - expected[1]).abs().max() < 1.1 * ACCURATE, wavelet
        gains = [g for pair in lifting_scheme(wavelet).steps for taps in pair for _, g in taps]
        assert max(map(abs, gains)) < 25, wavelet


def test_euclid_finds_the_published_steps():
    for name, published in PUBLISHED.items():
        found = _factor(name)
        if name == "haar":  # two steps too, the update first
            assert [len(taps) for pair in found.steps for taps in pair] == [0, 1, 1, 0]
            continue
        assert found.scale == pytest.approx(published.scale, abs=1e-11)
        for (p, u), (q, v) in zip(found.steps, published.steps, strict=True):
            assert dict(p) == pytest.approx(dict(q), abs=1e-11)
            assert dict(u) == pytest.approx(dict(v), abs=1e-11)
    assert lifting_scheme("9/7") is lifting_scheme("bior4.4") is PUBLISHED["bior4.4"]


def test_db2_by_hand():
    """Daubechies and Sweldens's three steps, from the taps of db2 divided on paper."""
    s = 3**0.5
    steps = ((((1, 1 / s),), ((-1, s / 4), (0, (6 - 3 * s) / 4))), (((0, 1 / 3),), ()))
    scale = ((3 + s) / (3 * 2**0.5), (3 - s) / 2**0.5)
    found = lifting_scheme("db2")
    assert found.scale == pytest.approx(scale, abs=1e-12)
    for (p, u), (q, v) in zip(found.steps, steps, strict=True):
        assert dict(p) == pytest.approx(dict(q), abs=1e-12)
        assert dict(u) == pytest.approx(dict(v), abs=1e-12)


def test_a_filter_bank_of_ones_own_and_one_without_inverse():
    own = pywt.Wavelet("average", [[0.5, 0.5], [-0.5, 0.5], [1.0, 1.0], [1.0, -1.0]])
    torch.testing.assert_close(
        lwt(torch.tensor([1.0, 3.0, 5.0, 11.0]), own, level=1),
        [torch.tensor([2.0, 8.0]), torch.tensor([-1.0, -3.0])],
    )
    two = [1.0, 2.0, 2.0, 1.0]
    broken = pywt.Wavelet("broken", [two, two, two, two])
    with pytest.raises(ValueError, match="have no inverse"):
        lwt(normal(8), broken, level=1)


# Transforms -------------------------------------------------------------------------------------


SHORT = [w for w in ALL if pywt.Wavelet(w).dec_len <= 24]  # what symmetric borders bear


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_perfect_reconstruction(boundary):
    """Every wavelet on the circle, those of up to 24 taps with mirrors; any size."""
    for wavelet in [*(ALL if boundary == "periodic" else SHORT), "5/3", "9/7"]:
        for n in (1, 2, 5, 37):
            x = normal(2, n, seed=n)
            coeffs = lwt(x, wavelet, level=3, boundary=boundary)
            back = ilwt(coeffs, wavelet, boundary=boundary, shape=(n,))
            assert (back - x).abs().max() < 1e-10, (wavelet, n)
            coeffs = lwt(x.float(), wavelet, level=3, boundary=boundary)
            single = ilwt(coeffs, wavelet, boundary=boundary, shape=(n,))
            assert single.dtype == torch.float32
            allowed = 2e-5 if wavelet in SHORT or "/" in wavelet else 1e-2
            assert (single - x).abs().max() < allowed, (wavelet, n)


def test_mirrors_lose_the_digits_of_long_filters():
    """As the docstring says: the steps do not cancel each other at a mirrored border."""
    x = normal(2, 37, seed=37)
    back = ilwt(lwt(x, "coif14", level=3, boundary="symmetric"), "coif14", boundary="symmetric")
    assert (back - x).abs().max() > 1


@given(
    wavelet=st.sampled_from([*ALL, "5/3", "9/7"]),
    boundary=st.sampled_from(BOUNDARIES),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    level=st.integers(1, 3),
)
def test_images_of_any_size(wavelet, boundary, shape, level):
    x = normal(2, *shape)
    if boundary == "symmetric" and wavelet in ALL and wavelet not in SHORT:
        wavelet = "9/7"
    coeffs = lwt2(x, wavelet, level=level, boundary=boundary)
    back = ilwt2(coeffs, wavelet, boundary=boundary, shape=shape)
    assert (back - x).abs().max() < 1e-9
    if boundary == "periodic" and wavelet in ALL and wavelet != "dmey":
        expected = wavedec2(x, wavelet, mode="periodization", level=level)
        assert distance(coeffs, expected) < 1e-9
    if boundary == "symmetric":
        assert sum(c.shape[-2:].numel() for c in flat(coeffs)) == shape[0] * shape[1]


@pytest.mark.parametrize("wavelet", SYMMETRIC)
@pytest.mark.parametrize("n", [2, 3, 9, 16])
def test_symmetric_is_the_mirrored_signal(wavelet, n):
    """One period of the mirrored signal, transformed on the circle, starts with the result."""
    x = normal(3, n)
    mirrored = torch.cat([x, x[:, 1:-1].flip(-1)], -1)
    lo, hi = lwt(mirrored, wavelet, level=1)
    ours = lwt(x, wavelet, level=1, boundary="symmetric")
    if wavelet == "haar":  # looks at no neighbour, so only an odd size meets the border
        n -= n % 2
    assert (
        distance(
            [ours[0][:, : (n + 1) // 2], ours[1][:, : n // 2]],
            [lo[:, : (n + 1) // 2], hi[:, : n // 2]],
        )
        < 1e-12
    )


def test_symmetric_keeps_straight_lines_without_detail():
    ramp = torch.arange(17, dtype=torch.float64)
    assert lwt(ramp, "5/3", level=1, boundary="symmetric")[1].abs().max() < 1e-12
    assert lwt(ramp, "5/3", level=1)[1].abs().max() > 1


@pytest.mark.parametrize("dim", [0, 1, -2, -1])
def test_any_axis(dim):
    x = normal(9, 6, 10)
    last = lwt(x.movedim(dim, -1), "bior2.4", level=2, boundary="symmetric")
    ours = lwt(x, "bior2.4", level=2, boundary="symmetric", dim=dim)
    for a, b in zip(ours, last, strict=True):
        assert torch.equal(a.movedim(dim, -1), b)
    torch.testing.assert_close(ilwt(ours, "bior2.4", boundary="symmetric", dim=dim), x)


def test_the_input_is_left_alone_and_views_are_taken():
    x = normal(6, 8).mT
    before = x.clone()
    coeffs = lwt2(x, "9/7", level=2)
    ilwt2(coeffs, "9/7")
    assert torch.equal(x, before)
    again = lwt2(x, "9/7", level=2)
    assert distance(coeffs, again) == 0  # the coefficients neither


# Integers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers_come_back_exactly(boundary, dtype):
    generator = torch.Generator().manual_seed(0)
    for wavelet in ("haar", "5/3", "9/7", "db4", "sym8"):
        for shape in ((16, 16), (7, 12), (1, 5)):
            x = torch.randint(256, (3, *shape), generator=generator).clamp(max=255).to(dtype)
            coeffs = lwt2(x, wavelet, level=3, boundary=boundary, integer=True)
            wide = torch.int64 if dtype == torch.int64 else torch.int32
            assert {c.dtype for c in flat(coeffs)} == {wide}
            back = ilwt2(coeffs, wavelet, boundary=boundary, shape=shape)
            assert torch.equal(back.to(dtype), x), (wavelet, shape)


def test_integer_five_three_is_that_of_jpeg_2000():
    """Annex F of the standard: floor of the mean predicts, floor(sum / 4 + 1 / 2) updates."""
    x = torch.randint(256, (21,), generator=torch.Generator().manual_seed(0)).numpy().astype(int)
    y = np.pad(x, 4, mode="reflect")
    for n in range(1, len(y) - 1, 2):
        y[n] -= (y[n - 1] + y[n + 1]) // 2
    for n in range(2, len(y) - 2, 2):
        y[n] += (y[n - 1] + y[n + 1] + 2) // 4
    lo, hi = lwt(torch.from_numpy(x), "5/3", level=1, boundary="symmetric", integer=True)
    assert lo.tolist() == y[4:-4:2].tolist()
    assert hi.tolist() == y[5:-4:2].tolist()


def test_rounded_is_near_the_unrounded():
    x = torch.randint(256, (40, 40), generator=torch.Generator().manual_seed(0))
    rounded = lwt2(x, "5/3", level=1, integer=True)
    exact = lwt2(x.double(), LiftingScheme(lifting_scheme("5/3").steps, (1.0, 1.0)), level=1)
    assert 0.1 < distance([c.double() for c in flat(rounded)], flat(exact)) < 2.5


# Gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("wavelet", ["haar", "5/3", "9/7", "db3", "rbio3.1"])
def test_adjoints_and_nothing_saved(wavelet, boundary):
    """<W x, c> = <x, W^T c> for transform and inverse, with W^T from autograd."""
    x = normal(2, 7, 6).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        coeffs = lwt2(x, wavelet, level=2, boundary=boundary)
        parts = [c.detach().clone().requires_grad_() for c in flat(coeffs)]
        back = ilwt2([parts[0], parts[1:4], parts[4:]], wavelet, boundary=boundary)
    assert saved == []
    other = [normal(*c.shape, seed=i) for i, c in enumerate(flat(coeffs))]
    (grad,) = torch.autograd.grad(list(flat(coeffs)), x, other)
    inner = sum((a * b).sum() for a, b in zip(flat(coeffs), other, strict=True))
    torch.testing.assert_close((x * grad).sum(), inner)
    v = normal(*back.shape, seed=9)
    grads = torch.autograd.grad(back, parts, v)
    inner = sum((a * b).sum() for a, b in zip(parts, grads, strict=True))
    torch.testing.assert_close((back * v).sum(), inner)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, on loading
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradcheck(boundary):
    def forward(x):
        return tuple(lwt(x, "9/7", level=2, boundary=boundary))

    x = normal(7).requires_grad_()
    assert torch.autograd.gradcheck(forward, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(forward, x, fast_mode=True)
    parts = [c.detach().requires_grad_() for c in forward(x)]
    assert torch.autograd.gradcheck(lambda *c: ilwt(c, "9/7", boundary=boundary), parts)


# Errors -----------------------------------------------------------------------------------------


def plain():
    """The module as a user runs it: another copy, whose annotations nothing checks."""
    path = Path(tutorial_lib.__file__)
    spec = importlib.util.spec_from_file_location(
        "plain_lifting", path, submodule_search_locations=[str(path.parent)]
    )
    sys.modules["plain_lifting"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["plain_lifting"])
    return importlib.import_module("plain_lifting.lifting")


P = plain()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lwt(normal(8), "5/4", level=1), "unknown wavelet '5/4'"),
        (lambda: P.lwt(normal(8), "5/3", level=1, boundary="zero"), "allowed are periodic, symm"),
        (lambda: lwt(normal(8), "5/3", level=0), "level = 0: a whole number of at least 1"),
        (lambda: lwt(normal(0), "5/3", level=1), r"shape \(0,\) has an empty axis"),
        (lambda: lwt2(normal(8), "5/3", level=1), r"shape \(8,\) has no axis -2"),
        (lambda: lwt(normal(8) / 0, "5/3", level=1, integer=True), "an integer tensor is needed"),
        (lambda: lwt(torch.arange(8), "5/3", level=1), "or integer=True"),
        (lambda: lwt(torch.tensor([1.0, torch.nan]), "5/3", level=1), "contains NaN"),
        (lambda: ilwt([normal(4), normal(5)], "5/3"), r"shape \(5,\) is not that of a signal"),
        (lambda: ilwt([normal(4), normal(4).float()], "5/3"), "not those of one signal"),
        (lambda: ilwt([normal(4), normal(1)], "5/3", boundary="symmetric"), "not those of one"),
        (lambda: ilwt([normal(4), normal(4)], "5/3", shape=(6,)), r"must be that of \(8,\)"),
        (lambda: merge(normal(3), normal(4)), "not those of one signal along axis -1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
