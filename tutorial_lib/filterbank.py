"""The two-channel filter bank as one linear map, and its transpose, over any number of axes.

`analyse` extends each axis across its border, correlates with the two filters and keeps every
second sample; `synthesise` runs the same steps transposed and backwards. The backward of each is
the other one with the same filters: exact for every border, and it has nothing to save. Products
are written in place or to `out`, which autocast leaves alone: the dtype is that of the input.
"""

import difflib
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import pywt
import torch
from torch import Tensor

Mode = Literal["zero", "symmetric", "reflect", "periodic", "periodization"]
MODES: tuple[str, ...] = ("zero", "symmetric", "reflect", "periodic", "periodization")
Wavelet = str | pywt.Wavelet
Taps = tuple[tuple[float, float], ...]  # (low-pass, high-pass) gains, tap by tap
BLOCK = 8  # outputs of one small matrix product
SLAB = 2**19  # numbers worked on at a time on a CPU: 2 MB of float32
ALONE = 2**17  # numbers from which a CPU takes each image by itself


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
    lead = x.shape[:-d]
    x = x.reshape(1, -1, *x.shape[-d:])
    # The last axis is filtered and comes out in front: after d times the batch is last.
    for axis in reversed(axes):
        x = (_decimate if axis.stride == 2 else _convolve)(x, axis, taps).flatten(0, 1)
    return x.movedim(-1, 0).reshape(*lead, *x.shape[:-1])


def _transpose(axes: tuple[Axis, ...], taps: Taps, bands: Tensor) -> Tensor:
    """(*batch, 2**d, m_1, ..., m_d) -> (*batch, n_1, ..., n_d): the transpose of `_bank`."""
    d = len(axes)
    if _is_large(bands, d + 1):
        return _in_slabs(partial(_transpose, axes, taps), bands, ndim=d + 1)
    if _is_block(axes, taps):
        return _unblocks(bands, taps, d)
    lead = bands.shape[: -d - 1]
    x = bands.reshape(-1, *bands.shape[-d - 1 :]).movedim(0, 1)
    for axis in reversed(axes):
        x = x.unflatten(0, (-1, 2))
        x = (_undecimate if axis.stride == 2 else _correlate)(x, axis, taps)
    return x.squeeze(0).movedim(-1, 0).reshape(*lead, *x.shape[1:-1])


def _decimate(x: Tensor, axis: Axis, taps: Taps) -> Tensor:
    """(bands, ..., n) -> (2, bands, count, ...), as products with one small Toeplitz matrix.

    A block of outputs is that matrix times a window of the signal: its zeros cost less than to
    pass over the signal once for each tap.
    """
    blocks, size = _partition(axis.count)
    surplus = blocks * size - axis.count
    x = _extend(x, -1, axis._replace(right=axis.right + 2 * surplus))
    out = x.new_empty(2, x.shape[0], blocks * size, *x.shape[1:-1])
    matrix = _matrix(taps, size, x.dtype, x.device)
    for j, band in enumerate(x):
        windows = _windows(band, blocks, 2 * size, matrix.shape[-1])
        for k in range(2):
            target = out[k, j].view(blocks, size, windows.shape[-1])
            torch.bmm(matrix[k].expand(blocks, -1, -1), windows, out=target)
    return out.narrow(2, 0, axis.count)


def _undecimate(x: Tensor, axis: Axis, taps: Taps) -> Tensor:
    """(bands, 2, ..., count) -> (bands, n, ...): the transpose of `_decimate`."""
    reach = len(taps) // 2 - 1  # a sample enters so many outputs before its own
    length = axis.count + reach
    blocks, size = _partition(length)
    ends = {"left": reach, "right": blocks * size - axis.count, "mode": "zero"}
    x = _extend(x, -1, axis._replace(n=axis.count, **ends))
    out = x.new_empty(x.shape[0], 2 * blocks * size, *x.shape[2:-1])
    matrix = _matrix(taps, size + reach, x.dtype, x.device)[..., 2 * reach : 2 * (reach + size)].mT
    for j, pair in enumerate(x):
        target = out[j].view(blocks, 2 * size, -1)
        for k in range(2):
            windows = _windows(pair[k], blocks, size, size + reach)
            target.baddbmm_(matrix[k].expand(blocks, -1, -1), windows, beta=k)
    return _extend_adjoint(out.narrow(1, 0, 2 * length), 1, axis)


def _convolve(x: Tensor, axis: Axis, taps: Taps) -> Tensor:
    """(bands, ..., n) -> (2, bands, n, ...), nothing decimated."""
    x = _extend(x.movedim(-1, 1), 1, axis)
    out = x.new_zeros(2, x.shape[0], axis.count, *x.shape[2:])
    for k, pair in enumerate(taps):
        window = x.narrow(1, k * axis.dilation, axis.count)
        for band, gain in zip(out, pair, strict=True):
            band.add_(window, alpha=gain)
    return out


def _correlate(x: Tensor, axis: Axis, taps: Taps) -> Tensor:
    """(bands, 2, ..., n) -> (bands, n, ...): the transpose of `_convolve`."""
    x = x.movedim(-1, 2)
    out = x.new_zeros(x.shape[0], axis.left + axis.n + axis.right, *x.shape[3:])
    for k, pair in enumerate(taps):
        window = out.narrow(1, k * axis.dilation, axis.count)
        for band, gain in zip(x.unbind(1), pair, strict=True):
            window.add_(band, alpha=gain)
    return _extend_adjoint(out, 1, axis)


def _partition(count: int) -> tuple[int, int]:
    """Number and size of equal blocks of at most BLOCK that hold `count`."""
    blocks = -(-count // BLOCK)
    return blocks, -(-count // blocks)


@lru_cache(maxsize=256)
def _matrix(taps: Taps, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2 bands, count outputs, the 2 count + taps - 2 samples they see)."""
    pair = torch.tensor(taps, dtype=torch.float64).mT
    matrix = torch.zeros(2, count, 2 * count + len(taps) - 2, dtype=torch.float64)
    for i in range(count):
        matrix[:, i, 2 * i : 2 * i + len(taps)] = pair
    return matrix.to(device, dtype)


def _windows(x: Tensor, count: int, step: int, width: int) -> Tensor:
    """(..., n) -> (count, width, rows): windows of the last axis, not copied."""
    rows = x.shape[:-1].numel()
    return x.contiguous().as_strided((count, width, rows), (step, 1, x.shape[-1]))


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
    """`_bank` as one small matrix product, all axes at once."""
    lead, halves = x.shape[:-d], [n // 2 for n in x.shape[-d:]]
    x = x.reshape(*lead, *(size for m in halves for size in (m, 2)))
    x = x.movedim(tuple(range(1 - 2 * d, 0, 2)), tuple(range(-2 * d, -d)))  # phases first
    x = x.reshape(*lead, 2**d, math.prod(halves))
    x = torch.matmul(_block_matrix(taps, d, x.dtype, x.device), x, out=x.new_empty(x.shape))
    return x.view(*lead, 2**d, *halves)


def _unblocks(bands: Tensor, taps: Taps, d: int) -> Tensor:
    """The transpose of `_blocks`."""
    lead, halves = bands.shape[: -d - 1], bands.shape[-d:]
    x = bands.flatten(-d)
    matrix = _block_matrix(taps, d, x.dtype, x.device).mT
    x = torch.matmul(matrix, x, out=x.new_empty(x.shape))
    phases = x.view(*lead, *(2,) * d, *halves).unbind(-d - 1)  # of the last axis
    out = x.new_empty(*lead, *(size for m in halves for size in (m, 2)))
    others = tuple(range(2 - 2 * d, -1, 2)), tuple(range(1 - 2 * d, -d))
    if x.dtype in (torch.float32, torch.float64):  # 8 x faster than to write every second number
        torch.complex(*phases, out=torch.view_as_complex(out).movedim(*others))
    else:
        for target, phase in zip(out.unbind(-1), phases, strict=True):
            target.movedim(*others).copy_(phase)
    return out.view(*lead, *(2 * m for m in halves))


def _is_large(x: Tensor, ndim: int) -> bool:
    image = x.shape[-ndim:].numel()
    return x.device.type == "cpu" and x.numel() > max(image, SLAB if image < ALONE else 0)


def _in_slabs(function: Callable[[Tensor], Tensor], x: Tensor, *, ndim: int) -> Tensor:
    """`function` over leading axes of x, a few elements at a time: they stay in the cache."""
    lead, image = x.shape[:-ndim], x.shape[-ndim:]
    x = x.reshape(-1, *image)
    count = 1 if image.numel() >= ALONE else max(1, SLAB // image.numel())
    first = function(x[:count])
    out = first.new_empty(len(x), *first.shape[1:])
    out[:count] = first
    for i in range(count, len(x), count):
        out[i : i + count] = function(x[i : i + count])
    return out.view(*lead, *out.shape[1:])


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
