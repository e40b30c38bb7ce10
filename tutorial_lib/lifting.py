"""Lifting: transforms that are inverted by running their steps backwards.

`lift` and `unlift` take any functions; `lwt` and `lwt2` are the wavelet transforms of PyWavelets
computed by lifting steps, and from integers to integers.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import starmap
from typing import Literal

import torch
from torch import Tensor

from .filterbank import Wavelet
from .laurent import LiftingScheme, lifting_scheme
from .wavelets import Details

__all__ = [
    "LiftingScheme",
    "ilwt",
    "ilwt2",
    "lift",
    "lifting_scheme",
    "lwt",
    "lwt2",
    "merge",
    "split",
    "unlift",
]

Step = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
Boundary = Literal["periodic", "symmetric"]
Parts = tuple[Tensor, ...]
# (0 changes coarse, 1 detail; (gain, ((to, from, how many), ...)) for each tap)
Plan = tuple[tuple[int, tuple[tuple[float, tuple[tuple[int, int, int], ...]], ...]], ...]


# Any predict, any update ------------------------------------------------------------------------


def lift(coarse: Tensor, detail: Tensor, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
    """Predict the details, update the coarse part, for each (predict, update) in turn.

    detail <- detail - predict(coarse), then coarse <- coarse + update(detail). Whatever the two
    functions are, `unlift` inverts it: each changes one part by a function of the other alone.

    Args:
        coarse, detail: tensors that `predict` and `update` map onto each other's shape.
        steps: (predict, update) pairs, any functions or modules.

    Returns:
        coarse, detail.

    Reference: W. Sweldens, The lifting scheme, SIAM J. Math. Anal., 1998.

    >>> haar = [(lambda c: c, lambda d: d / 2)]  # means and differences
    >>> lift(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 5.0]), haar)
    (tensor([2., 5.]), tensor([2., 0.]))
    """
    for predict, update in steps:
        detail = detail - predict(coarse)
        coarse = coarse + update(detail)
    return coarse, detail


def unlift(coarse: Tensor, detail: Tensor, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
    """Inverse of `lift`: coarse <- coarse - update(detail), detail <- detail + predict(coarse)."""
    for predict, update in reversed(steps):
        coarse = coarse - update(detail)
        detail = detail + predict(coarse)
    return coarse, detail


def split(x: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The lazy wavelet: the even and the odd samples along `dim`, as views into x.

    What is written into the parts is written into x: a transform needs no second array.

    >>> x = torch.tensor([1.0, 3.0, 5.0, 5.0])
    >>> even, odd = split(x)
    >>> odd -= even; even += odd / 2; x
    tensor([2., 2., 5., 0.])
    """
    _check_dims(x, (dim,))
    rest = (slice(None),) * (x.ndim - 1 - dim % x.ndim)
    return x[(..., slice(0, None, 2), *rest)], x[(..., slice(1, None, 2), *rest)]


def merge(even: Tensor, odd: Tensor, *, dim: int = -1) -> Tensor:
    """Inverse of `split`; `even` may have one sample more than `odd`."""
    _check_pair(even, odd, dim, (0, 1))
    return _merge(even, odd, dim, (1, 1))


# Wavelets ---------------------------------------------------------------------------------------


def lwt(
    x: Tensor,
    wavelet: Wavelet | LiftingScheme,
    *,
    level: int,
    boundary: Boundary = "periodic",
    integer: bool = False,
    dim: int = -1,
) -> list[Tensor]:
    """Lifting wavelet transform along one axis.

    With the boundary `periodic` the coefficients are those of `wavedec` in mode `periodization`,
    for every wavelet. `symmetric` mirrors the signal at its first and its last sample, and keeps
    exactly as many coefficients as samples at any size. It can be undone for every wavelet; but
    only where predict and update are symmetric about the sample that they change (5/3, 9/7,
    bior2.x and rbio2.x; Haar at even sizes) does it give the coefficients of the mirrored signal.
    Elsewhere those near the border are no filter bank's, and for filters of more than 24 taps the
    steps may grow there until the digits are lost (coif14: all of them): use `periodic`.

    Args:
        x: floating point, or of an integer dtype with `integer`.
        wavelet: a name of PyWavelets, `5/3`, `9/7`, or a scheme.
        level: number of levels, at least 1.
        boundary: periodic (an odd size is made even by repeating the last sample) or symmetric.
        integer: round what each step adds to the nearest integer, halves upwards, and leave out
            the scale: integers to integers, lossless, and with `5/3` that of JPEG 2000.
        dim: the axis.

    Returns:
        [cA_level, cD_level, ..., cD_1]; int32 for integers narrower than that.

    Raises:
        ValueError: unknown wavelet or boundary, level below 1, a dtype that does not go with
            `integer`, an empty axis, NaN.

    Reference: A. R. Calderbank, I. Daubechies, W. Sweldens, B.-L. Yeo, Wavelet transforms that
    map integers to integers, Appl. Comput. Harmon. Anal., 1998.

    >>> lwt(torch.tensor([10, 12, 14, 90], dtype=torch.uint8), "5/3", level=1, integer=True,
    ...     boundary="symmetric")
    [tensor([10, 33], dtype=torch.int32), tensor([ 0, 76], dtype=torch.int32)]
    """
    coeffs = _lwt(x, wavelet, level, boundary, integer, (dim,))
    return [c if i == 0 else c[0] for i, c in enumerate(coeffs)]


def ilwt(
    coeffs: Sequence[Tensor],
    wavelet: Wavelet | LiftingScheme,
    *,
    boundary: Boundary = "periodic",
    dim: int = -1,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """Inverse of `lwt`; from integers to integers if the coefficients are.

    Args:
        coeffs: what `lwt` returned.
        wavelet, boundary, dim: as given to `lwt`.
        shape: (n,), cuts the sample that `periodic` has added to an odd size.

    Raises:
        ValueError: as `lwt`; parts whose sizes do not fit together.
    """
    return _ilwt([coeffs[0], *((c,) for c in coeffs[1:])], wavelet, boundary, (dim,), shape)


def lwt2(
    x: Tensor,
    wavelet: Wavelet | LiftingScheme,
    *,
    level: int,
    boundary: Boundary = "periodic",
    integer: bool = False,
) -> list:
    """Lifting wavelet transform of images, over the last two axes. See `lwt`.

    Returns:
        [cA, Details_level, ..., Details_1] as `wavedec2`; with `symmetric` the bands of a level
        differ by one row or column at odd sizes.

    >>> x = torch.randint(256, (3, 31, 20), dtype=torch.uint8)
    >>> coeffs = lwt2(x, "5/3", level=3, boundary="symmetric", integer=True)
    >>> bool((ilwt2(coeffs, "5/3", boundary="symmetric") == x).all())
    True
    """
    approx, *details = _lwt(x, wavelet, level, boundary, integer, (-2, -1))
    return [approx, *(Details(h, v, d) for v, h, d in details)]


def ilwt2(
    coeffs: Sequence,
    wavelet: Wavelet | LiftingScheme,
    *,
    boundary: Boundary = "periodic",
    shape: Sequence[int] | None = None,
) -> Tensor:
    """Inverse of `lwt2`; `shape=(h, w)` as in `ilwt`."""
    details = [(v, h, d) for h, v, d in coeffs[1:]]
    return _ilwt([coeffs[0], *details], wavelet, boundary, (-2, -1), shape)


# One level --------------------------------------------------------------------------------------


def _lwt(x: Tensor, wavelet, level: int, boundary: str, integer: bool, dims: tuple) -> list:
    """[approximation, (bands 1 .. 2**len(dims) - 1)_level, ..., (...)_1]."""
    scheme = _scheme(wavelet, boundary)
    if not isinstance(level, int) or level < 1:
        raise ValueError(f"level = {level!r}: a whole number of at least 1 is needed")
    _check_dims(x, dims)
    _check_dtype(x, integer)
    if integer:
        x = x.to(torch.promote_types(x.dtype, torch.int32))
    coeffs = []
    for _ in range(level):
        if boundary == "periodic":
            for dim in dims:
                x = torch.cat([x, x.narrow(dim, -1, 1)], dim) if x.shape[dim] % 2 else x
        maps = [_maps(scheme, x.shape[dim], dim, boundary, integer) for dim in dims]
        x, *details = _apply(_compose([m[0] for m in maps]), _compose_back([m[2] for m in maps]), x)
        coeffs.append(tuple(details))
    return [x, *reversed(coeffs)]


def _ilwt(coeffs: Sequence, wavelet, boundary: str, dims: tuple, shape) -> Tensor:
    scheme = _scheme(wavelet, boundary)
    x = coeffs[0]
    _check_dims(x, dims)
    integer = not x.is_floating_point()
    for details in coeffs[1:]:
        if boundary == "periodic":
            x = _crop(x, [details[-1].shape[dim] for dim in dims], dims)
        bands = (x, *details)
        for band in bands:
            _check_dtype(band, integer)
        for i, dim in enumerate(dims):  # bands 0 and stride differ in the bit of this axis
            stride = 2 ** (len(dims) - 1 - i)
            for j in range(2 ** len(dims)):
                if not j & stride:
                    allowed = (0, 1) if boundary == "symmetric" else (0,)
                    _check_pair(bands[j], bands[j + stride], dim, allowed)
        stride = [2 ** (len(dims) - 1 - i) for i in range(len(dims))]
        sizes = [bands[0].shape[d] + bands[s].shape[d] for d, s in zip(dims, stride, strict=True)]
        maps = [
            _maps(scheme, n, dim, boundary, integer) for n, dim in zip(sizes, dims, strict=True)
        ]
        (x,) = _apply(_compose_back([m[1] for m in maps]), _compose([m[3] for m in maps]), *bands)
    return x if shape is None else _crop(x, shape, dims)


def _compose(maps: Sequence[Callable]) -> Callable[..., Parts]:
    """One tensor to 2**len(maps) bands: each map takes one tensor to two."""

    def bands(x: Tensor) -> Parts:
        parts: Parts = (x,)
        for one in maps:
            parts = tuple(band for part in parts for band in one(part))
        return parts

    return bands


def _compose_back(maps: Sequence[Callable]) -> Callable[..., Parts]:
    """2**len(maps) bands to one tensor: each map takes two to one, the last axis first."""

    def merged(*parts: Tensor) -> Parts:
        for one in reversed(maps):
            parts = tuple(starmap(one, zip(parts[::2], parts[1::2], strict=True)))
        return parts

    return merged


def _maps(scheme: LiftingScheme, n: int, dim: int, boundary: str, integer: bool) -> tuple:
    """The level along one axis of n samples: forward, inverse, and the adjoint of each."""
    scale = (1, 1) if integer else scheme.scale
    inverse = (1, 1) if integer else (1 / scale[0], 1 / scale[1])
    plan = _plan(scheme, n, boundary, integer)
    run = _run_integer if integer else _run

    def analysis(factor: tuple, back: bool, x: Tensor) -> Parts:
        parts = tuple(s * f for s, f in zip(split(x, dim=dim), factor, strict=True))
        run(parts, plan, dim, inverse=back, transpose=back)
        return parts

    def synthesis(factor: tuple, back: bool, coarse: Tensor, detail: Tensor) -> Tensor:
        parts = coarse.clone(), detail.clone()
        run(parts, plan, dim, inverse=back, transpose=not back)
        return _merge(*parts, dim, factor)

    return (
        partial(analysis, scale, False),
        partial(synthesis, inverse, True),
        partial(synthesis, scale, False),
        partial(analysis, inverse, True),
    )


def _run(parts: Parts, plan: Plan, dim: int, *, inverse: bool, transpose: bool) -> None:
    """All steps in place; undone backwards with `inverse`, as the adjoint with `transpose`."""
    for to, taps in reversed(plan) if inverse != transpose else plan:
        for gain, runs in taps:
            for at, start, size in runs:
                target = parts[to].narrow(dim, at, size)
                source = parts[1 - to].narrow(dim, start, size)
                if transpose:
                    target, source = source, target
                target.add_(source, alpha=-gain if inverse else gain)


def _run_integer(parts: Parts, plan: Plan, dim: int, *, inverse: bool, transpose: bool) -> None:
    """All steps in place, each rounded; the inverse subtracts the very integers that were added."""
    for to, taps in reversed(plan) if inverse else plan:
        added = torch.full_like(parts[to], 0.5, dtype=torch.float64)
        for gain, runs in taps:
            for at, start, size in runs:
                source = parts[1 - to].narrow(dim, start, size)
                added.narrow(dim, at, size).add_(source.double(), alpha=gain)
        parts[to].add_(added.floor().to(parts[to].dtype), alpha=-1 if inverse else 1)


@lru_cache(maxsize=4096)
def _plan(scheme: LiftingScheme, n: int, boundary: str, integer: bool) -> Plan:
    """Which samples each tap reads, in runs; gains between parts that are scaled already."""
    ratio = 1.0 if integer else scheme.scale[1] / scheme.scale[0]
    plan = []
    for predict, update in scheme.steps if n > 1 else ():
        for to, taps, gain in ((1, predict, -ratio), (0, update, 1 / ratio)):
            runs = [(gain * g, _runs(offset, to, n, boundary)) for offset, g in taps]
            plan += [(to, tuple(runs))] if runs else []
    return tuple(plan)


def _runs(offset: int, to: int, n: int, boundary: str) -> tuple[tuple[int, int, int], ...]:
    """part[t] reads the other part at t + offset, wrapped or mirrored: runs of neighbours."""
    runs: list[tuple[int, int, int]] = []
    for t in range((n + 1 - to) // 2):
        at = 2 * (t + offset) + 1 - to
        if boundary == "periodic":
            at %= n
        else:
            at = min(at % (2 * n - 2), -at % (2 * n - 2))
        at //= 2
        if runs and at == runs[-1][1] + runs[-1][2]:
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((t, at, 1))
    return tuple(runs)


def _merge(even: Tensor, odd: Tensor, dim: int, factor: tuple) -> Tensor:
    size = list(even.shape)
    size[dim] += odd.shape[dim]
    out = even.new_empty(size)
    for part, view, gain in zip((even, odd), split(out, dim=dim), factor, strict=True):
        torch.mul(part, gain, out=view)
    return out


class _Linear(torch.autograd.Function):
    """A linear map of tensors given with its adjoint; nothing is saved for backward."""

    @staticmethod
    def forward(ctx, function: Callable, adjoint: Callable, *parts: Tensor) -> Parts:
        ctx.map, ctx.adjoint = function, adjoint
        out = function(*parts)
        return out if isinstance(out, tuple) else (out,)

    @staticmethod
    def backward(ctx, *grads):
        return None, None, *_Linear.apply(ctx.adjoint, ctx.map, *grads)

    @staticmethod
    def jvp(ctx, _, __, *tangents):
        return _Linear.apply(ctx.map, ctx.adjoint, *tangents)


def _apply(function: Callable, adjoint: Callable, *parts: Tensor) -> Parts:
    return _Linear.apply(function, adjoint, *parts)


# Checks -----------------------------------------------------------------------------------------


def _scheme(wavelet: Wavelet | LiftingScheme, boundary: str) -> LiftingScheme:
    if boundary not in ("periodic", "symmetric"):
        raise ValueError(f"unknown boundary {boundary!r}: allowed are periodic, symmetric")
    return wavelet if isinstance(wavelet, LiftingScheme) else lifting_scheme(wavelet)


def _check_dims(x: Tensor, dims: tuple[int, ...]) -> None:
    for dim in dims:
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(f"x of shape {tuple(x.shape)} has no axis {dim}")
        if x.shape[dim] == 0:
            raise ValueError(f"x of shape {tuple(x.shape)} has an empty axis")


def _check_dtype(x: Tensor, integer: bool) -> None:
    if integer and (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool):
        raise ValueError(f"x of dtype {x.dtype}: with integer=True an integer tensor is needed")
    if not integer:
        if not x.is_floating_point():
            raise ValueError(
                f"x of dtype {x.dtype}: a floating-point tensor is needed, or integer=True"
            )
        if x.sum().isnan() and x.isnan().any():
            raise ValueError(f"x of shape {tuple(x.shape)} contains NaN")


def _check_pair(coarse: Tensor, detail: Tensor, dim: int, longer: tuple[int, ...]) -> None:
    """Parts of one signal: equal but for `dim`, where coarse may have so many samples more."""
    shapes = [list(p.shape) for p in (coarse, detail)]
    if len(shapes[0]) == len(shapes[1]) and -coarse.ndim <= dim < coarse.ndim:
        more = shapes[0].pop(dim) - shapes[1].pop(dim)
        if more in longer and shapes[0] == shapes[1] and coarse.dtype == detail.dtype:
            return
    raise ValueError(
        f"parts of shapes {tuple(coarse.shape)} {coarse.dtype} and {tuple(detail.shape)} "
        f"{detail.dtype} are not those of one signal along axis {dim}"
    )


def _crop(x: Tensor, shape: Sequence[int], dims: tuple[int, ...]) -> Tensor:
    sizes = [x.shape[dim] for dim in dims]
    if len(shape) != len(dims) or any(
        n - m not in (0, 1) for m, n in zip(shape, sizes, strict=True)
    ):
        raise ValueError(
            f"shape {tuple(shape)} is not that of a signal with these coefficients: each size "
            f"must be that of {tuple(sizes)} or one less"
        )
    for dim, size in zip(dims, shape, strict=True):
        x = x.narrow(dim, 0, size)
    return x
