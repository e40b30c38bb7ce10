"""The two-channel filter bank as one linear map, and its transpose, over any number of axes.

`analyse` extends each axis across its border, correlates with the two filters and keeps every
second sample; `synthesise` runs the same steps transposed and backwards. The backward of each is
the other one with the same filters: exact for every border, and it has nothing to save.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import pywt
import torch
from torch import Tensor

Mode = Literal["zero", "symmetric", "reflect", "periodic", "periodization"]
MODES: tuple[str, ...] = ("zero", "symmetric", "reflect", "periodic", "periodization")
Wavelet = str | pywt.Wavelet
Taps = tuple[tuple[float, float], ...]  # (low-pass, high-pass) gains, tap by tap
SLAB = 2**19  # numbers worked on at a time on a CPU: 2 MB of float32


class FilterBank(NamedTuple):
    """The four filters of a two-channel filter bank, each a float64 tensor of shape (taps,)."""

    dec_lo: Tensor
    dec_hi: Tensor
    rec_lo: Tensor
    rec_hi: Tensor


def filter_bank(wavelet: Wavelet) -> FilterBank:
    """The filters of a discrete wavelet, as PyWavelets tabulates them.

    Args:
        wavelet: a name of `pywt.wavelist(kind="discrete")`, or a `pywt.Wavelet`.

    Raises:
        ValueError: if the name is not that of a discrete wavelet.

    >>> filter_bank("haar").dec_hi.tolist() == [-(0.5**0.5), 0.5**0.5]
    True
    """
    if not isinstance(wavelet, pywt.Wavelet):
        if wavelet not in _names():
            close = difflib.get_close_matches(str(wavelet), _names(), n=3)
            raise ValueError(
                f"unknown wavelet {wavelet!r}"
                + (f" (did you mean {', '.join(close)}?)" if close else "")
                + ": allowed are the names of pywt.wavelist(kind='discrete'): "
                + "haar, db1-db38, sym2-sym20, coif1-coif17, bior1.1-6.8, rbio1.1-6.8, dmey"
            )
        wavelet = pywt.Wavelet(wavelet)
    return FilterBank(*(torch.tensor(taps, dtype=torch.float64) for taps in wavelet.filter_bank))


@lru_cache(maxsize=512)
def gains(wavelet: Wavelet) -> tuple[Taps, Taps]:
    """The filters of `analyse`, and those of the `synthesise` that inverts it."""
    dec_lo, dec_hi, rec_lo, rec_hi = (f.tolist() for f in filter_bank(wavelet))
    reverse = zip(reversed(dec_lo), reversed(dec_hi), strict=True)
    return tuple(reverse), tuple(zip(rec_lo, rec_hi, strict=True))


class Axis(NamedTuple):
    """How one axis of n samples is filtered: extended, then `count` outputs `stride` apart."""

    n: int
    left: int
    right: int
    mode: str
    count: int
    stride: int
    dilation: int


@lru_cache(maxsize=4096)
def decimated(n: int, taps: int, mode: str) -> Axis:
    """n samples to floor((n + taps - 1) / 2), or ceil(n / 2) for periodization."""
    if mode == "periodization":
        left, count = taps // 2 - 1, (n + 1) // 2
    else:
        left, count = taps - 2, (n + taps - 1) // 2
    return Axis(n, left, 2 * count + taps - 2 - left - n, mode, count, 2, 1)


@lru_cache(maxsize=4096)
def stationary(n: int, taps: int, dilation: int) -> Axis:
    """n samples on a circle to n, with taps `dilation` apart."""
    dilation %= n  # the same taps on the circle
    left = (taps // 2 - 1) * dilation
    return Axis(n, left, (taps - 1) * dilation - left, "periodic", n, 1, dilation)


def analyse(x: Tensor, axes: tuple[Axis, ...], taps: Taps) -> Tensor:
    """(*batch, n_1, ..., n_d) -> (*batch, 2**d, m_1, ..., m_d), linear and differentiable."""
    return _Linear.apply(x, partial(_bank, axes, taps), partial(_transpose, axes, taps))


def synthesise(bands: Tensor, axes: tuple[Axis, ...], taps: Taps) -> Tensor:
    """(*batch, 2**d, m_1, ..., m_d) -> (*batch, n_1, ..., n_d): the transpose of `analyse`."""
    return _Linear.apply(bands, partial(_transpose, axes, taps), partial(_bank, axes, taps))


class _Linear(torch.autograd.Function):
    """A linear map given with its adjoint; each is the other's derivative, and nothing is saved."""

    @staticmethod
    def forward(ctx, x: Tensor, forward: Callable, adjoint: Callable) -> Tensor:
        ctx.map, ctx.adjoint = forward, adjoint
        return forward(x)

    @staticmethod
    def backward(ctx, grad):
        return _Linear.apply(grad, ctx.adjoint, ctx.map), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Linear.apply(tangent, ctx.map, ctx.adjoint)


def _bank(axes: tuple[Axis, ...], taps: Taps, x: Tensor) -> Tensor:
    """(*batch, n_1, ..., n_d) -> (*batch, 2**d, m_1, ..., m_d)."""
    d = len(axes)
    if _is_large(x, d):
        return _in_slabs(partial(_bank, axes, taps), x, ndim=d)
    if _is_block(axes, taps):
        return _blocks(x, taps, d)
    x = x.unsqueeze(-d - 1)
    for dim, axis in zip(range(-d, 0), axes, strict=True):
        phases = _phases(_extend(x, dim, axis), dim, axis.stride)
        size = list(x.shape)
        size[dim] = axis.count
        out = x.new_empty([*size[:-d], 2, *size[-d:]])
        for k, pair in enumerate(taps):
            at, phase = divmod(k * axis.dilation, axis.stride)
            window = phases[phase].narrow(dim, at, axis.count)
            for band, gain in zip(out.unbind(-d - 1), pair, strict=True):
                if k == 0:
                    torch.mul(window, gain, out=band)
                elif gain:
                    band.add_(window, alpha=gain)
        x = out.flatten(-d - 2, -d - 1)
    return x


def _transpose(axes: tuple[Axis, ...], taps: Taps, bands: Tensor) -> Tensor:
    """(*batch, 2**d, m_1, ..., m_d) -> (*batch, n_1, ..., n_d): the transpose of `_bank`."""
    d = len(axes)
    if _is_large(bands, d + 1):
        return _in_slabs(partial(_transpose, axes, taps), bands, ndim=d + 1)
    if _is_block(axes, taps):
        return _unblocks(bands, taps, d)
    for dim, axis in zip(range(-1, -d - 1, -1), reversed(axes), strict=True):
        lo_hi = bands.unflatten(-d - 1, (-1, 2)).unbind(-d - 1)
        size = list(lo_hi[0].shape)
        size[dim] = (axis.left + axis.n + axis.right) // axis.stride
        phases = [bands.new_empty(size) for _ in range(axis.stride)]
        for k, pair in enumerate(taps):
            at, phase = divmod(k * axis.dilation, axis.stride)
            window = phases[phase].narrow(dim, at, axis.count)
            for i, (band, gain) in enumerate(zip(lo_hi, pair, strict=True)):
                if k < axis.stride and i == 0:
                    torch.mul(band, gain, out=window)
                    phases[phase].narrow(dim, axis.count, size[dim] - axis.count).zero_()
                elif gain:
                    window.add_(band, alpha=gain)
        extended = _interleave(phases, dim)
        bands = _extend_adjoint(extended, dim, axis)
    return bands.squeeze(-d - 1)


def _is_block(axes: tuple[Axis, ...], taps: Taps) -> bool:
    """Haar at even sizes: blocks of two samples an axis do not overlap."""
    return len(taps) == 2 and all(a.stride == 2 and a.right == 0 for a in axes)


@lru_cache(maxsize=64)
def _block_matrix(taps: Taps, d: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2**d bands, 2**d samples of a block)."""
    pair = torch.tensor(taps, dtype=torch.float64).mT
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(d):
        matrix = torch.kron(matrix, pair)
    return matrix.to(device, dtype)


def _blocks(x: Tensor, taps: Taps, d: int) -> Tensor:
    """`_bank` as one small matrix product, several times faster than axis by axis."""
    lead, halves = x.shape[:-d], [n // 2 for n in x.shape[-d:]]
    x = x.reshape(*lead, *(size for m in halves for size in (m, 2)))
    x = x.movedim(tuple(range(1 - 2 * d, 0, 2)), tuple(range(-2 * d, -d)))  # phases first
    x = x.reshape(*lead, 2**d, math.prod(halves))
    with torch.autocast(x.device.type, enabled=False):  # the dtype is that of the input
        x = _block_matrix(taps, d, x.dtype, x.device) @ x
    return x.view(*lead, 2**d, *halves)


def _unblocks(bands: Tensor, taps: Taps, d: int) -> Tensor:
    """The transpose of `_blocks`."""
    lead, halves = bands.shape[: -d - 1], bands.shape[-d:]
    with torch.autocast(bands.device.type, enabled=False):
        x = _block_matrix(taps, d, bands.dtype, bands.device).mT @ bands.flatten(-d)
    x = x.view(*lead, 2 ** (d - 1), 2, *halves)
    x = _interleave(x.unbind(-d - 1), -1)  # the last axis is whole
    x = x.view(*lead, *(2,) * (d - 1), *halves[:-1], 2 * halves[-1])
    x = x.movedim(tuple(range(1 - 2 * d, -d)), tuple(range(2 - 2 * d, -1, 2)))
    return x.reshape(*lead, *(2 * m for m in halves))


def _is_large(x: Tensor, ndim: int) -> bool:
    return x.numel() > SLAB and x.device.type == "cpu" and x.numel() > x.shape[-ndim:].numel()


def _in_slabs(function: Callable[[Tensor], Tensor], x: Tensor, *, ndim: int) -> Tensor:
    """`function` over leading axes of x, a few elements at a time so that they stay in the cache.

    On a large CPU batch this halves the time of a transform; the result is the same.
    """
    elements = max(1, SLAB // x.shape[-ndim:].numel())
    parts = [function(part) for part in x.flatten(0, -ndim - 1).split(elements)]
    return torch.cat(parts).unflatten(0, x.shape[:-ndim])


def _phases(x: Tensor, dim: int, stride: int) -> list[Tensor]:
    """The polyphase components x[p::stride] along `dim`; contiguous where that pays."""
    parts = x.unflatten(dim, (-1, stride)).unbind(dim)
    return [p.contiguous() for p in parts] if dim == -1 else list(parts)


def _interleave(phases: Sequence[Tensor], dim: int) -> Tensor:
    """Inverse of `_phases`."""
    if len(phases) == 2 and dim == -1 and phases[0].dtype in (torch.float32, torch.float64):
        return torch.view_as_real(torch.complex(*phases)).flatten(-2)  # 8 x faster than to stack
    return torch.stack(tuple(phases), dim).flatten(dim - 1, dim)


def _extend(x: Tensor, dim: int, axis: Axis) -> Tensor:
    """`left` and `right` more samples on either side, read from x as the mode says."""
    if axis.left == axis.right == 0:
        return x
    left, right = _border(axis, x.device)
    if left is None:
        size = list(x.shape)
        size[dim] = axis.left + axis.n + axis.right
        out = x.new_zeros(size)
        out.narrow(dim, axis.left, axis.n).copy_(x)
        return out
    return torch.cat([x.index_select(dim, left), x, x.index_select(dim, right)], dim)


def _extend_adjoint(x: Tensor, dim: int, axis: Axis) -> Tensor:
    """What the extension copied outwards is added back to where it was read."""
    if axis.left == axis.right == 0:
        return x
    left, right = _border(axis, x.device)
    inner = x.narrow(dim, axis.left, axis.n)
    if left is None:
        return inner.contiguous()
    inner.index_add_(dim, left, x.narrow(dim, 0, axis.left).clone())
    inner.index_add_(dim, right, x.narrow(dim, axis.left + axis.n, axis.right).clone())
    return inner.contiguous()


@lru_cache(maxsize=4096)
def _border(axis: Axis, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Which sample each position left and right of the signal repeats; None where it is zero."""
    n = axis.n
    if axis.mode == "zero":
        return None, None
    if axis.mode == "reflect" and n == 1:
        raise ValueError("mode 'reflect' needs at least 2 samples along each axis, got 1")
    at = torch.cat([torch.arange(-axis.left, 0), torch.arange(n, n + axis.right)])
    if axis.mode == "symmetric":
        at = at % (2 * n)
        at = torch.minimum(at, 2 * n - 1 - at)
    elif axis.mode == "reflect":
        at = at % (2 * n - 2)
        at = torch.minimum(at, 2 * n - 2 - at)
    elif axis.mode == "periodic":
        at = at % n
    else:  # an odd size is made even by repeating the last sample
        at = (at % (n + n % 2)).clamp(max=n - 1)
    left, right = at.to(device).split([axis.left, axis.right])
    return left, right


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    return tuple(pywt.wavelist(kind="discrete"))
