"""Where the atoms of a convolutional code lie, and products with it at each frequency and in space.

The machinery of the modules `convolutional*`: boundaries, strides and shapes are explained in the
first of them.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .prox import _check_values

Boundary = Literal["circular", "padded"]
Stride = int | Sequence[int]
BOUNDARIES: tuple[str, ...] = ("circular", "padded")
CONVOLVE = {
    1: (torch.nn.functional.conv1d, torch.nn.functional.conv_transpose1d),
    2: (torch.nn.functional.conv2d, torch.nn.functional.conv_transpose2d),
    3: (torch.nn.functional.conv3d, torch.nn.functional.conv_transpose3d),
}


class _Plan(NamedTuple):
    """Where things lie: the image is `shape` samples from `offset` on of a canvas grid * stride.

    The canvas is circular. In the padded case atoms that wrap round it land before `offset`, where
    nobody looks: so a padded problem is a circular one with unseen samples.
    """

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    grid: tuple[int, ...]
    offset: tuple[int, ...]
    padded: bool

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))

    @property
    def canvas(self) -> tuple[int, ...]:
        return tuple(g * q for g, q in zip(self.grid, self.stride, strict=True))

    def window(self, x: Tensor) -> Tensor:
        """Phases (..., channels * stride^d, *grid) -> image (..., channels, *shape)."""
        x = _phases_back(x, self.stride)
        at = (slice(o, o + n) for o, n in zip(self.offset, self.shape, strict=True))
        return x[(..., *at)]

    def unwindow(self, y: Tensor) -> Tensor:
        """The adjoint of `window`."""
        if self.padded:
            y = _pad(y, self.offset, self.canvas)
        return _phases(y, self.stride)

    def crop_filters(self, x: Tensor) -> Tensor:
        x = _phases_back(x, self.stride)
        return x[(..., *map(slice, self.kernel))]


def _plan(filters: Tensor, shape: Sequence[int], boundary: str, stride: Stride) -> _Plan:
    kernel, shape = _kernel(filters), tuple(shape)
    if boundary not in BOUNDARIES:
        raise ValueError(f"unknown boundary {boundary!r}: allowed are {', '.join(BOUNDARIES)}")
    if len(shape) != len(kernel) or min(shape) < 1:
        raise ValueError(
            f"filters of shape {tuple(filters.shape)} have {len(kernel)} kernel axes, "
            f"images of shape {shape} do not fit"
        )
    strides = _strides(stride, len(kernel))
    if any(q > k for k, q in zip(kernel, strides, strict=True)):
        raise ValueError(f"stride = {stride}: above the kernel {kernel} it would leave gaps")
    if boundary == "padded":
        offset = tuple(q * -(-(k - 1) // q) for k, q in zip(kernel, strides, strict=True))
        ends = zip(offset, shape, strides, strict=True)
        grid = tuple((o + n - 1) // q + 1 for o, n, q in ends)
        return _Plan(shape, kernel, strides, grid, offset, True)
    if any(n % q for n, q in zip(shape, strides, strict=True)):
        raise ValueError(
            f"shape {shape} is no multiple of stride {stride}: pad it, or take boundary='padded'"
        )
    if any(k > n for k, n in zip(kernel, shape, strict=True)):
        raise ValueError(f"kernel {kernel} is larger than the circular image {shape}")
    grid = tuple(n // q for n, q in zip(shape, strides, strict=True))
    return _Plan(shape, kernel, strides, grid, (0,) * len(shape), False)


def _kernel(filters: Tensor) -> tuple[int, ...]:
    _check_values(filters, "filters")
    if not 3 <= filters.ndim <= 5 or 0 in filters.shape:
        raise ValueError(
            f"filters of shape {tuple(filters.shape)}: (maps, channels, *kernel) with one, two or "
            "three kernel axes is needed"
        )
    return tuple(filters.shape[2:])


def _strides(stride: Stride, d: int) -> tuple[int, ...]:
    strides = tuple(stride) if isinstance(stride, Sequence) else (stride,) * d
    if len(strides) != d or not all(isinstance(q, int) and q >= 1 for q in strides):
        raise ValueError(f"stride = {stride}: a whole number of at least 1, or one for each axis")
    return strides


def _pad(x: Tensor, before: Sequence[int], canvas: Sequence[int]) -> Tensor:
    """Zeros around the last axes, up to the canvas."""
    sides = []
    for n, o, m in reversed(list(zip(x.shape[-len(canvas) :], before, canvas, strict=True))):
        sides += [o, m - n - o]
    return torch.nn.functional.pad(x, sides) if any(sides) else x


def _phases(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """(..., c, *(g q)) -> (..., c * prod q, *g): each phase of the stride a channel of its own."""
    if set(stride) == {1}:
        return x
    d = len(stride)
    lead = x.shape[: -d - 1]
    split = [part for n, q in zip(x.shape[-d:], stride, strict=True) for part in (n // q, q)]
    x = x.reshape(*lead, x.shape[-d - 1], *split)
    grid, phase = range(-2 * d, 0, 2), range(-2 * d + 1, 0, 2)
    x = x.permute(*range(len(lead) + 1), *(x.ndim + i for i in (*phase, *grid)))
    return x.reshape(*lead, -1, *x.shape[-d:])


def _phases_back(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The inverse of `_phases`."""
    if set(stride) == {1}:
        return x
    d = len(stride)
    lead, grid = x.shape[: -d - 1], x.shape[-d:]
    x = x.reshape(*lead, -1, *stride, *grid)
    base = len(lead) + 1
    order = [axis for i in range(d) for axis in (base + d + i, base + i)]
    x = x.permute(*range(base), *order)
    return x.reshape(*lead, x.shape[base - 1], *(g * q for g, q in zip(grid, stride, strict=True)))


def _spectrum(plan: _Plan, filters: Tensor) -> Tensor:
    """Filters on the canvas, as phases: (maps, channels * stride^d, *frequencies)."""
    hat = _fft(_phases(_pad(filters, (0,) * len(plan.grid), plan.canvas), plan.stride), plan)
    if hat.shape[1] == 1:
        return hat
    m, c = hat.shape[:2]  # in memory (*frequencies, maps, channels): matrices for `_contract`
    flat = hat.reshape(m, c, -1).permute(2, 0, 1).contiguous()
    return flat.permute(1, 2, 0).reshape(hat.shape)


def _fft(x: Tensor, plan: _Plan) -> Tensor:
    return torch.fft.rfftn(x, dim=plan.dims)


def _ifft(x: Tensor, plan: _Plan) -> Tensor:
    return torch.fft.irfftn(x, s=plan.grid, dim=plan.dims)


def _mix(hat: Tensor, Z: Tensor) -> Tensor:
    """D at each frequency: (m, c, *f), (*batch, m, *f) -> (*batch, c, *f)."""
    if hat.shape[1] == 1:
        return (hat[:, 0] * Z).sum(1 - hat.ndim, keepdim=True)
    return _contract(hat.transpose(0, 1), Z)


def _unmix(hat: Tensor, Y: Tensor) -> Tensor:
    """Its adjoint: (*batch, c, *f) -> (*batch, m, *f)."""
    if hat.shape[1] == 1:
        return hat[:, 0].conj() * Y
    return _contract(hat.conj(), Y)


def _contract(M: Tensor, Z: Tensor) -> Tensor:
    """A matrix at each frequency: (i, j, *f), (*batch, j, *f) -> (*batch, i, *f)."""
    i, j, *f = M.shape
    product = torch.einsum("ijf,bjf->bif", M.reshape(i, j, -1), Z.reshape(-1, j, math.prod(f)))
    return product.reshape(*Z.shape[: Z.ndim - len(f) - 1], i, *f)


def _eigen(hat: Tensor) -> tuple[Tensor, Tensor | None]:
    """D D^T at each frequency: its eigenvalues (c, *f), and eigenvectors (c, c, *f) if c > 1."""
    if hat.shape[1] == 1:
        return hat.abs().square().sum(0), None
    m, c, *f = hat.shape
    flat = hat.reshape(m, c, -1).permute(2, 1, 0)
    values, vectors = torch.linalg.eigh(flat @ flat.mH)
    values = values.clamp(min=0).mT.reshape(c, *f)
    return values, vectors.permute(1, 2, 0).reshape(c, c, *f)


def _ridge(eigen: tuple[Tensor, Tensor | None], R: Tensor, weight: Tensor) -> Tensor:
    """(weight + D D^T)^-1 R."""
    values, vectors = eigen
    if vectors is None:
        return R / (values + weight)
    rotated = _contract(vectors.conj().transpose(0, 1), R) / (values + weight)
    return _contract(vectors, rotated)


# In space ----------------------------------------------------------------------------------------


def _ahead(plan: _Plan) -> tuple[int, ...]:
    """Places of the grid from which an atom reaches beyond the start of the image."""
    return tuple(-(-(k - 1) // q) for k, q in zip(plan.kernel, plan.stride, strict=True))


def _synthesis(plan: _Plan, filters: Tensor, z: Tensor) -> Tensor:
    d, ahead = len(plan.grid), _ahead(plan)
    batch = z.shape[: -d - 1]
    z = z.reshape(-1, *z.shape[-d - 1 :])
    if not plan.padded:  # the last places again, before the first
        for axis, p in zip(plan.dims, ahead, strict=True):
            z = torch.cat([z.narrow(axis, z.shape[axis] - p, p), z], axis)
    x = CONVOLVE[d][1](z, filters, stride=plan.stride)
    at = (slice(p * q, p * q + n) for p, q, n in zip(ahead, plan.stride, plan.shape, strict=True))
    return x[(..., *at)].reshape(*batch, filters.shape[1], *plan.shape)


def _analysis(plan: _Plan, filters: Tensor, y: Tensor) -> Tensor:
    d, ahead = len(plan.grid), _ahead(plan)
    batch = y.shape[: -d - 1]
    y = y.reshape(-1, *y.shape[-d - 1 :])
    places = [g + (0 if plan.padded else p) for g, p in zip(plan.grid, ahead, strict=True)]
    steps = zip(places, plan.stride, plan.kernel, strict=True)
    canvas = [(g - 1) * q + k for g, q, k in steps]
    offset = [p * q for p, q in zip(ahead, plan.stride, strict=True)]
    z = CONVOLVE[d][0](_pad(y, offset, canvas), filters, stride=plan.stride)
    if not plan.padded:  # the adjoint of repeating: add what was repeated
        for axis, p, g in zip(plan.dims, ahead, plan.grid, strict=True):
            first, rest = z.narrow(axis, 0, p), z.narrow(axis, p, g)
            z = torch.cat([rest.narrow(axis, 0, g - p), rest.narrow(axis, g - p, p) + first], axis)
    return z.reshape(*batch, *z.shape[1:])
