"""Wavelet transforms in one and two dimensions, decimated and undecimated, with PyWavelets' names.

Filters, band order, sizes and borders are those of PyWavelets, and so are the results. All
transforms are differentiable, batched over leading axes, and run where their input lives.
"""

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import pywt
import torch
from jaxtyping import Float
from torch import Tensor

from .filterbank import (
    MODES,
    FilterBank,
    Mode,
    Wavelet,
    analyse,
    decimated,
    filter_bank,
    gains,
    stationary,
    synthesise,
)

__all__ = [
    "Details",
    "FilterBank",
    "MODES",
    "dwt",
    "filter_bank",
    "idwt",
    "iswt",
    "iswt2",
    "max_level",
    "ravel_coeffs",
    "swt",
    "swt2",
    "unravel_coeffs",
    "wavedec",
    "wavedec2",
    "waverec",
    "waverec2",
]


class Details(NamedTuple):
    """The three detail bands of one 2-D level, each (*batch, h, w)."""

    horizontal: Tensor
    vertical: Tensor
    diagonal: Tensor


def max_level(size: int, wavelet: Wavelet) -> int:
    """The largest level at which one coefficient still does not see only the border.

    floor(log2(size / (taps - 1))), and at least 0: PyWavelets' `dwt_max_level`.

    Raises:
        ValueError: unknown wavelet, a size below one.

    >>> max_level(256, "haar"), max_level(256, "db8")
    (8, 4)
    """
    taps, _ = gains(wavelet)
    if not _is_count(size):
        raise ValueError(f"size = {size}: a whole number of at least 1 is needed")
    return pywt.dwt_max_level(size, len(taps))


# One level ---------------------------------------------------------------------------------------


def dwt(
    x: Float[Tensor, "..."], wavelet: Wavelet, *, mode: Mode = "symmetric", ndim: int = 1
) -> Float[Tensor, "..."]:
    """One level of the discrete wavelet transform over the last `ndim` axes.

    Along each axis, with x extended across its border by `mode`:
    lo[n] = sum_k dec_lo[k] x[2n+1-k] and hi[n] = sum_k dec_hi[k] x[2n+1-k].

    Args:
        x: (*batch, n_1, ..., n_ndim), floating point, any sizes.
        wavelet: name of a discrete wavelet of PyWavelets.
        mode: zero, symmetric (half-sample), reflect (whole-sample), periodic, or periodization
            (periodic, with ceil(n/2) coefficients: no redundancy at even sizes).
        ndim: number of trailing axes to transform.

    Returns:
        (*batch, 2**ndim, m_1, ..., m_ndim) with m = floor((n + taps - 1) / 2), or ceil(n / 2) for
        periodization. The band index reads as bits, a = 0 and d = 1, first axis first: in 2-D
        aa, ad, da, dd, where da is PyWavelets' horizontal and ad its vertical band.

    Raises:
        ValueError: unknown wavelet or mode, too few axes, an empty axis, an integer tensor, NaN.

    Reference: S. Mallat, A Wavelet Tour of Signal Processing, 3rd ed., 2008, chapter 7.

    >>> (dwt(torch.tensor([1.0, 3.0, 5.0, 11.0]), "haar") / 2**0.5).round()
    tensor([[ 2.,  8.],
            [-1., -3.]])
    """
    taps, _ = gains(wavelet)
    _check(x, mode, ndim)
    return analyse(x, _axes(x, ndim, taps, mode), taps)


def idwt(
    bands: Float[Tensor, "..."],
    wavelet: Wavelet,
    *,
    mode: Mode = "symmetric",
    ndim: int = 1,
    shape: Sequence[int] | None = None,
) -> Float[Tensor, "..."]:
    """Inverse of `dwt`.

    Args:
        bands: (*batch, 2**ndim, m_1, ..., m_ndim).
        wavelet, mode, ndim: as given to `dwt`.
        shape: the `ndim` sizes of the signal. Without it an axis of odd size comes back one
            sample longer, as in PyWavelets.

    Returns:
        (*batch, n_1, ..., n_ndim).

    Raises:
        ValueError: as `dwt`; a band axis that is not 2**ndim; a `shape` that cannot be.

    >>> x = torch.randn(3, 17, dtype=torch.float64)
    >>> torch.allclose(idwt(dwt(x, "db4"), "db4", shape=(17,)), x)
    True
    """
    _check(bands, mode, ndim + 1)
    if bands.shape[-ndim - 1] != 2**ndim:
        raise ValueError(
            f"bands of shape {tuple(bands.shape)}: axis {-ndim - 1} must hold 2**{ndim} bands"
        )
    x = _synthesis(bands, wavelet, mode, ndim)
    return x if shape is None else _crop(x, shape, ndim)


# Many levels -------------------------------------------------------------------------------------


def wavedec(
    x: Float[Tensor, "*batch n"],
    wavelet: Wavelet,
    *,
    mode: Mode = "symmetric",
    level: int | None = None,
) -> list[Tensor]:
    """Multilevel 1-D wavelet transform over the last axis.

    Args:
        x: (*batch, n).
        wavelet, mode: see `dwt`.
        level: number of levels, at least 1; `None` takes `max_level`.

    Returns:
        [cA_level, cD_level, ..., cD_1], as `pywt.wavedec`.

    Raises:
        ValueError: as `dwt`; a level that is not a whole number of at least 1.

    >>> [len(c) for c in wavedec(torch.randn(64), "haar", level=3)]
    [8, 8, 16, 32]
    """
    return [c if i == 0 else c[0] for i, c in enumerate(_wavedec(x, wavelet, mode, level, 1))]


def waverec(
    coeffs: Sequence[Tensor],
    wavelet: Wavelet,
    *,
    mode: Mode = "symmetric",
    shape: Sequence[int] | None = None,
) -> Float[Tensor, "*batch n"]:
    """Inverse of `wavedec`.

    Args:
        coeffs: [cA_level, cD_level, ..., cD_1], each (*batch, m).
        wavelet, mode: as given to `wavedec`.
        shape: (n,) cuts the extra sample that an odd size comes back with.

    Raises:
        ValueError: as `dwt`; coefficients of another transform; a `shape` that cannot be.
    """
    _check_coeffs(coeffs, 1)
    return _waverec([coeffs[0], *((c,) for c in coeffs[1:])], wavelet, mode, shape, 1)


def wavedec2(
    x: Float[Tensor, "*batch h w"],
    wavelet: Wavelet,
    *,
    mode: Mode = "symmetric",
    level: int | None = None,
) -> list:
    """Multilevel 2-D wavelet transform over the last two axes, images of any size.

    Args:
        x: (*batch, h, w).
        wavelet, mode: see `dwt`.
        level: number of levels, at least 1; `None` takes `max_level` of the smaller side.

    Returns:
        [cA_level, Details(horizontal, vertical, diagonal)_level, ..., Details_1], PyWavelets'
        order. `horizontal` responds to horizontal edges: high-pass down the columns.

    Raises:
        ValueError: as `wavedec`.

    >>> cA, fine = wavedec2(torch.randn(3, 16, 16), "haar", level=1)
    >>> cA.shape, fine.diagonal.shape
    (torch.Size([3, 8, 8]), torch.Size([3, 8, 8]))
    """
    approx, *details = _wavedec(x, wavelet, mode, level, 2)
    return [approx, *(Details(h, v, d) for v, h, d in details)]


def waverec2(
    coeffs: Sequence,
    wavelet: Wavelet,
    *,
    mode: Mode = "symmetric",
    shape: Sequence[int] | None = None,
) -> Float[Tensor, "*batch h w"]:
    """Inverse of `wavedec2`.

    Args:
        coeffs: [cA_level, (horizontal, vertical, diagonal)_level, ..., (...)_1].
        wavelet, mode: as given to `wavedec2`.
        shape: (h, w) cuts the extra sample that odd sizes come back with.

    Raises:
        ValueError: as `waverec`.
    """
    _check_coeffs(coeffs, 2)
    details = [(v, h, d) for h, v, d in coeffs[1:]]
    return _waverec([coeffs[0], *details], wavelet, mode, shape, 2)


# Undecimated (stationary) ------------------------------------------------------------------------


def swt(x: Float[Tensor, "*batch n"], wavelet: Wavelet, *, level: int) -> list[Tensor]:
    """Undecimated (stationary, a trous) 1-D wavelet transform: nothing is subsampled.

    Level j correlates with filters whose taps lie 2**(j-1) apart; the signal is periodic. Every
    coefficient of the decimated transform of every circular shift of x appears once, so noise
    has the same standard deviation in each band as there.

    Args:
        x: (*batch, n), any n.
        wavelet: name of a discrete wavelet of PyWavelets.
        level: number of levels, at least 1.

    Returns:
        [cA_level, cD_level, ..., cD_1], each (*batch, n): `pywt.swt(..., trim_approx=True)`.

    Raises:
        ValueError: as `wavedec`.

    Reference: M. J. Shensa, The discrete wavelet transform, IEEE Trans. Signal Process., 1992.

    >>> [tuple(c.shape) for c in swt(torch.randn(2, 12), "db2", level=2)]
    [(2, 12), (2, 12), (2, 12)]
    """
    return [c if i == 0 else c[0] for i, c in enumerate(_swt(x, wavelet, level, 1))]


def iswt(coeffs: Sequence[Tensor], wavelet: Wavelet) -> Float[Tensor, "*batch n"]:
    """Inverse of `swt`: at each level the mean of the two possible decimated inverses.

    Args:
        coeffs: [cA_level, cD_level, ..., cD_1], each (*batch, n).
        wavelet: as given to `swt`.

    Raises:
        ValueError: unknown wavelet; coefficients of another transform, or with NaN.
    """
    _check_coeffs(coeffs, 1)
    return _iswt([coeffs[0], *((c,) for c in coeffs[1:])], wavelet, 1)


def swt2(x: Float[Tensor, "*batch h w"], wavelet: Wavelet, *, level: int) -> list:
    """Undecimated 2-D transform: [cA, Details_level, ..., Details_1], each (*batch, h, w).

    The order is that of `pywt.swt2(..., trim_approx=True)`.

    Args:
        x: (*batch, h, w), any sizes.
        wavelet, level: see `swt`.

    Raises:
        ValueError: as `wavedec`.
    """
    approx, *details = _swt(x, wavelet, level, 2)
    return [approx, *(Details(h, v, d) for v, h, d in details)]


def iswt2(coeffs: Sequence, wavelet: Wavelet) -> Float[Tensor, "*batch h w"]:
    """Inverse of `swt2`.

    Args:
        coeffs: [cA, (horizontal, vertical, diagonal)_level, ...], each (*batch, h, w).
        wavelet: as given to `swt2`.

    Raises:
        ValueError: as `iswt`.
    """
    _check_coeffs(coeffs, 2)
    return _iswt([coeffs[0], *((v, h, d) for h, v, d in coeffs[1:])], wavelet, 2)


# Coefficients as one vector ----------------------------------------------------------------------


def ravel_coeffs(coeffs: Sequence) -> tuple[Float[Tensor, "*batch n"], tuple]:
    """All coefficients of a transform as one vector per batch element, coarsest first.

    Args:
        coeffs: what `wavedec`, `wavedec2`, `swt` or `swt2` returned.

    Returns:
        the vector (*batch, n) and the layout, a tuple of shapes that `unravel_coeffs` takes;
        `math.prod(layout[0])` entries at the front are the approximation.

    Raises:
        ValueError: an empty list, or one that no transform returns.

    >>> flat, layout = ravel_coeffs(wavedec2(torch.randn(4, 8, 8), "haar", level=2))
    >>> flat.shape, layout
    (torch.Size([4, 64]), ((2, 2), (2, 2), (4, 4)))
    """
    ndim = 1 if all(isinstance(c, Tensor) for c in coeffs) else 2
    _check_coeffs(coeffs, ndim)
    levels = [(c,) if isinstance(c, Tensor) else tuple(c) for c in coeffs]
    parts = [band for level in levels for band in level]
    layout = tuple(tuple(level[0].shape[-ndim:]) for level in levels)
    return torch.cat([p.flatten(-ndim) for p in parts], dim=-1), layout


def unravel_coeffs(flat: Float[Tensor, "*batch n"], layout: tuple) -> list:
    """Inverse of `ravel_coeffs`: the list of coefficients that `waverec`, `waverec2` take.

    Args:
        flat: (*batch, n).
        layout: as `ravel_coeffs` returned it.

    Raises:
        ValueError: a last axis that is not of the layout's length.
    """
    bands = 2 ** len(layout[0]) - 1
    sizes = [math.prod(layout[0])] + [math.prod(s) for s in layout[1:] for _ in range(bands)]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(
            f"coefficients of shape {tuple(flat.shape)}: the last axis must be {sum(sizes)}"
        )
    shapes = [layout[0]] + [shape for shape in layout[1:] for _ in range(bands)]
    parts = [
        part.view(*flat.shape[:-1], *shape)
        for part, shape in zip(flat.split(sizes, dim=-1), shapes, strict=True)
    ]
    coeffs: list = [parts[0]]
    for j in range(1, len(parts), bands):
        coeffs.append(parts[j] if bands == 1 else Details(*parts[j : j + bands]))
    return coeffs


# Levels, for any number of axes ------------------------------------------------------------------


def _wavedec(x: Tensor, wavelet: Wavelet, mode: str, level: int | None, ndim: int) -> list:
    """[approximation, (bands 1 .. 2**ndim - 1)_level, ..., (...)_1]."""
    taps, _ = gains(wavelet)
    _check(x, mode, ndim)
    if level is None:
        level = min(max_level(n, wavelet) for n in x.shape[-ndim:])
    else:
        _check_level(level)
    coeffs = []
    for _ in range(level):
        x, *details = analyse(x, _axes(x, ndim, taps, mode), taps).unbind(-ndim - 1)
        coeffs.append(tuple(details))
    return [x, *reversed(coeffs)]


def _waverec(
    coeffs: Sequence, wavelet: Wavelet, mode: str, shape: Sequence[int] | None, ndim: int
) -> Tensor:
    gains(wavelet)  # an unknown name is refused, however few the levels
    x = coeffs[0]
    _check(x, mode, ndim)
    for details in coeffs[1:]:
        size = details[0].shape[-ndim:]
        if any(m not in (n, n - 1) for m, n in zip(size, x.shape[-ndim:], strict=True)):
            raise ValueError(
                f"detail bands of shape {tuple(details[0].shape)} do not follow an approximation "
                f"of shape {tuple(x.shape)}: were they made with this wavelet and mode?"
            )
        x = _synthesis(_stack(_crop(x, size, ndim), details, ndim), wavelet, mode, ndim)
    _check_rebuilt(x, coeffs)
    return x if shape is None else _crop(x, shape, ndim)


def _swt(x: Tensor, wavelet: Wavelet, level: int, ndim: int) -> list:
    taps, _ = gains(wavelet)
    _check(x, "periodic", ndim)
    _check_level(level)
    coeffs = []
    for j in range(level):
        axes = tuple(stationary(n, len(taps), 2**j) for n in x.shape[-ndim:])
        x, *details = analyse(x, axes, taps).unbind(-ndim - 1)
        coeffs.append(tuple(details))
    return [x, *reversed(coeffs)]


def _iswt(coeffs: Sequence, wavelet: Wavelet, ndim: int) -> Tensor:
    taps = tuple((lo / 2, hi / 2) for lo, hi in gains(wavelet)[1])
    x = coeffs[0]
    _check(x, "periodic", ndim)
    for j, details in reversed(list(enumerate(reversed(coeffs[1:])))):
        axes = tuple(stationary(n, len(taps), 2**j) for n in x.shape[-ndim:])
        x = synthesise(_stack(x, details, ndim), axes, taps)
    _check_rebuilt(x, coeffs)
    return x


def _stack(x: Tensor, details: Sequence[Tensor], ndim: int) -> Tensor:
    """The approximation and the details of one level as one tensor of bands."""
    if any((d.shape, d.dtype) != (x.shape, x.dtype) for d in details):
        raise ValueError(
            "the bands of one level must be of one shape and dtype, got "
            + ", ".join(f"{tuple(d.shape)} {d.dtype}" for d in (x, *details))
        )
    return torch.stack([x, *details], dim=-ndim - 1)


def _check_rebuilt(x: Tensor, coeffs: Sequence) -> None:
    """One look at the result: a NaN in any coefficient has reached it."""
    if x.sum().isnan():
        for j, details in enumerate(coeffs[1:], 1):
            if any(d.isnan().any() for d in details):
                raise ValueError(f"coeffs[{j}] of shape {tuple(details[0].shape)} contains NaN")


def _axes(x: Tensor, ndim: int, taps: tuple, mode: str) -> tuple:
    return tuple(decimated(n, len(taps), mode) for n in x.shape[-ndim:])


def _synthesis(bands: Tensor, wavelet: Wavelet, mode: str, ndim: int) -> Tensor:
    """One level back, not yet cropped: only periodization wraps, other borders are cut off."""
    _, taps = gains(wavelet)
    wraps = mode == "periodization"
    lengths = [2 * m if wraps else 2 * m - len(taps) + 2 for m in bands.shape[-ndim:]]
    if min(lengths) < 1:
        raise ValueError(f"bands of shape {tuple(bands.shape)} are too short for {len(taps)} taps")
    edge = "periodization" if wraps else "zero"
    return synthesise(bands, tuple(decimated(n, len(taps), edge) for n in lengths), taps)


def _crop(x: Tensor, shape: Sequence[int], ndim: int) -> Tensor:
    size = x.shape[-ndim:]
    if tuple(shape) == size:
        return x
    if len(shape) != ndim or any(m not in (n, n - 1) for m, n in zip(shape, size, strict=True)):
        raise ValueError(
            f"shape {tuple(shape)} is not that of a signal with these coefficients: each size "
            f"must be that of {tuple(size)} or one less"
        )
    return x[(..., *(slice(m) for m in shape))]


def _check(x: Tensor, mode: str, ndim: int) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: allowed are {', '.join(MODES)}")
    if ndim < 1:
        raise ValueError(f"ndim = {ndim}: at least one axis must be transformed")
    if x.ndim < ndim:
        raise ValueError(f"x of shape {tuple(x.shape)} has fewer than {ndim} axes")
    if not x.is_floating_point():
        raise ValueError(f"x of dtype {x.dtype}: a floating-point tensor is needed")
    if 0 in x.shape[-ndim:]:
        raise ValueError(f"x of shape {tuple(x.shape)} has an empty axis")
    if x.sum().isnan() and x.isnan().any():  # one pass where there is none
        raise ValueError(f"x of shape {tuple(x.shape)} contains NaN")


def _check_coeffs(coeffs: Sequence, ndim: int) -> None:
    """[approximation, level, ...]: a level is one tensor in 1-D, three in 2-D."""

    def is_level(c: object) -> bool:
        if ndim == 1:
            return isinstance(c, Tensor)
        return isinstance(c, Sequence) and len(c) == 3 and all(isinstance(b, Tensor) for b in c)

    if not (len(coeffs) and isinstance(coeffs[0], Tensor) and all(map(is_level, coeffs[1:]))):
        raise ValueError(
            f"coeffs = [{', '.join(type(c).__name__ for c in coeffs)}]: a tensor, then "
            f"{'a tensor' if ndim == 1 else 'three tensors'} a level, is needed"
        )


def _check_level(level: int) -> None:
    if not _is_count(level):
        raise ValueError(f"level = {level!r}: a whole number of at least 1 is needed")


def _is_count(n: object) -> bool:
    """A whole number of at least 1, one of NumPy's too."""
    try:
        return operator.index(n) >= 1
    except TypeError:
        return False
