"""Filter banks factored into lifting steps: Euclid's algorithm on Laurent polynomials.

A filter that adds up gain * s[n + offset] is the Laurent polynomial sum gain z**offset, kept here
as (gains from the lowest offset on, lowest offset). One level of a filter bank maps the even and
the odd samples to (lo, hi) by a 2 x 2 matrix of them; lifting steps are its elementary factors.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .filterbank import Wavelet, filter_bank

Filter = tuple[tuple[int, float], ...]  # (offset, gain) pairs
Poly = tuple[np.ndarray, int]

WIDTH = 8  # so many partial factorisations are followed at a time
NOISE = 1e-16  # db38 has taps of 2e-18 that do not matter, and of 4e-17 that do
ACCURATE = 1e-11
ZERO: Poly = (np.zeros(0), 0)


class LiftingScheme(NamedTuple):
    """A wavelet transform as lifting steps.

    From coarse[n] = x[2n] and detail[n] = x[2n + 1], each (predict, update) pair does
    detail[n] -= sum gain coarse[n + offset] over predict, then
    coarse[n] += sum gain detail[n + offset] over update; then each part is multiplied by its scale.
    """

    steps: tuple[tuple[Filter, Filter], ...]
    scale: tuple[float, float]


def _symmetric(predict: float, update: float) -> tuple[Filter, Filter]:
    """Predict an odd sample from its two neighbours, update an even one from its two."""
    return ((0, predict), (1, predict)), ((-1, update), (0, update))


PUBLISHED = {
    "haar": LiftingScheme(((((0, 1.0),), ((0, 0.5),)),), (2**0.5, -(0.5**0.5))),
    "bior2.2": LiftingScheme((_symmetric(0.5, 0.25),), (2**0.5, -(0.5**0.5))),
    "bior4.4": LiftingScheme(
        (
            _symmetric(1.586134342059924, -0.052980118572961),
            _symmetric(-0.882911075530934, 0.443506852043971),
        ),
        (1.149604398860241, -1 / 1.149604398860241),
    ),
}
ALIASES = {"5/3": "bior2.2", "9/7": "bior4.4"}


def lifting_scheme(wavelet: Wavelet) -> LiftingScheme:
    """The lifting steps that compute one level of a discrete wavelet transform.

    `haar`, `5/3` (bior2.2) and `9/7` (bior4.4) have their published steps. Every other pair of
    filters is factored by Euclid's algorithm: dividing the even part of the low-pass filter by
    the odd part, and so on, shortens both until a constant is left. A division of Laurent
    polynomials may cancel terms at either end, and the choice decides about the accuracy: all are
    tried, and the paths are kept on which the partly factored matrix stays smallest.

    Args:
        wavelet: name of a discrete wavelet of PyWavelets, `5/3`, `9/7`, or a `pywt.Wavelet`.

    Returns:
        steps and scale; on the circle the filters of PyWavelets to 1e-11 (dmey, which does not
        reconstruct, to 3e-3).

    Raises:
        ValueError: an unknown name; filters that cannot be inverted.

    Reference: I. Daubechies, W. Sweldens, Factoring wavelet transforms into lifting steps, 1998.

    >>> lifting_scheme("5/3").steps
    ((((0, 0.5), (1, 0.5)), ((-1, 0.25), (0, 0.25))),)
    """
    name = ALIASES.get(wavelet, wavelet) if isinstance(wavelet, str) else wavelet
    return PUBLISHED[name] if name in PUBLISHED else _factor(name)


@lru_cache(maxsize=512)
def _factor(wavelet: Wavelet) -> LiftingScheme:
    matrix = _polyphase(wavelet)
    live, done = [(0.0, matrix, [])], []
    while live:
        longer = []
        for size, ((a, b), (c, d)), steps in live:
            if len(a[0]) == 0 or len(b[0]) == 0:
                done += _finish(size, ((a, b), (c, d)), steps)
                continue
            choices = []
            if len(a[0]) >= len(b[0]):
                choices += [(1, q, ((r, b), (_minus(c, q, d), d))) for q, r in _divide(a, b)]
            if len(b[0]) >= len(a[0]):
                choices += [(0, q, ((a, r), (c, _minus(d, q, c)))) for q, r in _divide(b, a)]
            longer += [(size + _log_size(rest), rest, [*steps, (to, q)]) for to, q, rest in choices]
        live = sorted(longer, key=lambda state: state[0])[:WIDTH]
    if not done:
        raise ValueError(f"the filters of {wavelet!r} have no inverse: they cannot be factored")
    done.sort(key=lambda state: state[0])
    _, steps, scale = min(done, key=lambda state: max(ACCURATE, _error(matrix, *state[1:])))
    pairs: list[list[Filter]] = []
    for to, (gains, low) in steps:  # 1 changes the detail, 0 the coarse part
        gains = -gains if to else gains
        if to or not pairs or pairs[-1][1]:
            pairs.append([(), ()])
        pairs[-1][1 - to] = tuple((low + i, float(g)) for i, g in enumerate(gains) if g)
    return LiftingScheme(tuple((p, u) for p, u in pairs), scale)


def _polyphase(wavelet: Wavelet) -> tuple[tuple[Poly, Poly], ...]:
    """The even and the odd part of the low-pass filter, and those of the high-pass filter."""
    rows = []
    for taps in filter_bank(wavelet)[:2]:
        low = 1 - len(taps) // 2  # lo[n] = sum_k taps[-1 - k] x[2n + low + k]: periodization
        gains = taps.flip(0).numpy()
        even, odd = (_trim(gains[i::2], (low + i) // 2, 0.0) for i in (low % 2, 1 - low % 2))
        rows.append((even, odd))
    return tuple(rows)


def _finish(size: float, matrix: tuple, steps: list) -> list:
    """From a low-pass row (constant * z**k, 0), or the reverse, to (constant, 0); what is left."""
    (a, b), (c, d) = matrix
    if len(a[0]) > 1 or len(b[0]) > 1:
        return []  # a common factor: no inverse
    steps = list(steps)

    def move(to: int, gain: float, low: int) -> None:
        nonlocal a, b, c, d, size
        q = (np.array([gain]), low)
        if to:
            a, c = _trim(*_minus(a, q, b), NOISE), _minus(c, q, d)
        else:
            b, d = _trim(*_minus(b, q, a), NOISE), _minus(d, q, c)
        steps.append((to, q))
        size += _log_size(((a, b), (c, d)))

    if len(a[0]) and a[1]:
        move(0, -1.0, -a[1])
        move(1, 1.0, a[1])
    if len(a[0]) == 0:
        move(1, -1.0, -b[1])
        move(0, 1.0, b[1])
    if not 0 <= -d[1] < len(d[0]) or not d[0][-d[1]]:
        return []
    scale = float(a[0][0]), float(d[0][-d[1]])
    last = _trim(c[0] / scale[1], c[1], NOISE)
    if np.abs(last[0]).max(initial=0.0) > ACCURATE:
        steps.append((1, last))
    size += sum(abs(math.log(abs(s))) for s in scale) + float(np.log1p(np.abs(last[0]).sum()))
    return [(size, steps, scale)]


def _error(matrix: tuple, steps: list, scale: tuple[float, float]) -> float:
    """The largest difference of a tap to the product of the steps."""
    rows = [[(np.array([scale[0]]), 0), ZERO], [ZERO, (np.array([scale[1]]), 0)]]
    for to, (gains, low) in reversed(steps):
        for row in rows:
            row[1 - to] = _minus(row[1 - to], (-gains, low), row[to])
    one = (np.ones(1), 0)
    pairs = zip((*rows[0], *rows[1]), (*matrix[0], *matrix[1]), strict=True)
    return max(float(np.abs(_minus(p, one, q)[0]).max(initial=0.0)) for p, q in pairs)


def _log_size(matrix: tuple) -> float:
    return math.log(sum(float(np.square(p[0]).sum()) for row in matrix for p in row)) / 2


def _divide(a: Poly, b: Poly) -> Iterator[tuple[Poly, Poly]]:
    """Every a = q b + r with r shorter than b: k terms cancelled at the left, the rest right."""
    (a0, low), (b0, shift) = a, b
    terms = len(a0) - len(b0) + 1
    for k in range(terms + 1):
        r, q = a0.copy(), np.zeros(terms)
        for i in (*range(k), *range(terms - 1, k - 1, -1)):
            end = 0 if i < k else len(b0) - 1
            q[i] = r[i + end] / b0[end]
            r[i : i + len(b0)] -= q[i] * b0
            r[i + end] = 0.0
        yield (q, low - shift), _trim(r, low, NOISE)


def _minus(a: Poly, q: Poly, b: Poly) -> Poly:
    """a - q b."""
    if len(q[0]) == 0 or len(b[0]) == 0:
        return a
    product, low = np.convolve(q[0], b[0]), q[1] + b[1]
    if len(a[0]) == 0:
        return -product, low
    first = min(a[1], low)
    out = np.zeros(max(a[1] + len(a[0]), low + len(product)) - first)
    out[a[1] - first :][: len(a[0])] += a[0]
    out[low - first :][: len(product)] -= product
    return out, first


def _trim(gains: np.ndarray, low: int, noise: float) -> Poly:
    at = np.flatnonzero(np.abs(gains) > noise)
    return (gains[at[0] : at[-1] + 1], low + int(at[0])) if len(at) else ZERO
