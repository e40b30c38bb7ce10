"""Strided convolutional dictionaries: how alike atoms are, and the mean over all shifts.

Shapes, boundaries and strides are those of `convolutional`.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .canvas import BOUNDARIES, Boundary, Stride, _kernel, _strides
from .prox import _check_values


def shift_coherence(
    filters: Float[Tensor, "maps channels *kernel"], *, stride: Stride = 1
) -> float:
    """max |<d_i, d_j moved by a multiple of the stride>| over all pairs but an atom with itself.

    Atoms are scaled to length one. With a stride at least as large as the kernel only atoms at the
    same place can overlap, and this is the coherence of a patch dictionary.

    Raises:
        ValueError: NaN or zero filters, an unfit stride.

    >>> box = torch.ones(1, 1, 4)
    >>> round(shift_coherence(box), 4), shift_coherence(box, stride=4)
    (0.75, 0.0)
    """
    kernel = _kernel(filters)
    strides = _strides(stride, len(kernel))
    length = torch.linalg.vector_norm(filters.flatten(1), dim=1)
    if not (length > 0).all():
        raise ValueError(f"filter {int(length.argmin())} is zero")
    dims = tuple(range(-len(kernel), 0))
    # lags below k, in a multiple of the stride that leaves room for both signs
    size = [s * math.ceil((2 * k - 1) / s) for k, s in zip(kernel, strides, strict=True)]
    d = filters.double() / length.reshape(-1, *(1 for _ in filters.shape[1:]))
    hat = torch.fft.rfftn(d, s=size, dim=dims)
    inner = torch.fft.irfftn(torch.einsum("ic...,jc...->ij...", hat.conj(), hat), s=size, dim=dims)
    inner = inner[(..., *(slice(None, None, s) for s in strides))].abs()
    inner[(*[torch.arange(len(d))] * 2, *(0 for _ in kernel))] = 0
    return float(inner.max())


def stack_shifts(
    y: Float[Tensor, "..."],
    stride: Stride,
    *,
    dims: int = 2,
    boundary: Boundary = "circular",
) -> Float[Tensor, "shifts ..."]:
    """All shifts of an image against a strided grid, along a new first axis.

    Shift s holds y moved by s samples, 0 <= s < stride on each axis, the last axis fastest:
    "circular" moves round, "padded" continues the image by reflection, stride samples an axis in
    all. `average_shifts` moves back.

    Args:
        y: images, the last `dims` axes those of an image.
        stride: that of the dictionary, one for all axes or one for each.

    Returns:
        (product of strides, *batch, channels, *shape + stride where "padded").

    Raises:
        ValueError: NaN, unknown boundary, unfit stride or dims, an image smaller than the stride.

    >>> stack_shifts(torch.tensor([[1.0, 2.0, 3.0]]), 2, dims=1)[:, 0]
    tensor([[1., 2., 3.],
            [3., 1., 2.]])
    """
    _check_values(y, "y")
    if boundary not in BOUNDARIES:
        raise ValueError(f"unknown boundary {boundary!r}: allowed are {', '.join(BOUNDARIES)}")
    if not 1 <= dims <= y.ndim:
        raise ValueError(f"dims = {dims}: 1 to {y.ndim} are allowed for y of {tuple(y.shape)}")
    strides, shape = _strides(stride, dims), y.shape[-dims:]
    if boundary == "padded" and any(s >= n for s, n in zip(strides, shape, strict=True)):
        raise ValueError(f"stride = {stride}: an image of {tuple(shape)} is too small to reflect")
    axes = tuple(range(-dims, 0))
    moved = []
    for shift in itertools.product(*map(range, strides)):
        if boundary == "circular":
            moved.append(y.roll(shift, axes))
            continue
        part = y
        for axis, s, q in zip(axes, shift, strides, strict=True):
            n = y.shape[axis]
            index = torch.arange(-s, n + q - s, device=y.device).abs()
            part = part.index_select(axis, torch.where(index < n, index, 2 * (n - 1) - index))
        moved.append(part)
    return torch.stack(moved)


def average_shifts(
    x: Float[Tensor, "shifts ..."],
    stride: Stride,
    shape: Sequence[int],
    *,
    boundary: Boundary = "circular",
) -> Float[Tensor, "..."]:
    """The mean of all shifts, each moved back: average_shifts(stack_shifts(y)) = y.

    Args:
        x: (shifts, *batch, channels, ...), as from `stack_shifts`.
        stride: the same.
        shape: of the image, without its channels.
        boundary: the same.

    Returns:
        (*batch, channels, *shape).

    Raises:
        ValueError: unknown boundary, x of a shape that `stack_shifts` would not give.

    Reference: D. Simon, M. Elad, Rethinking the CSC model for natural images, NeurIPS 2019.

    >>> y = torch.rand(1, 5, 6)
    >>> torch.allclose(average_shifts(stack_shifts(y, 3), 3, (5, 6)), y)
    True
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"unknown boundary {boundary!r}: allowed are {', '.join(BOUNDARIES)}")
    shape, dims = tuple(shape), len(shape)
    strides = _strides(stride, dims)
    extra = strides if boundary == "padded" else (0,) * dims
    needed = tuple(n + e for n, e in zip(shape, extra, strict=True))
    if len(x) != math.prod(strides) or x.shape[-dims:] != needed:
        raise ValueError(
            f"x of shape {tuple(x.shape)}: ({math.prod(strides)}, ..., {needed}) is needed for "
            f"stride {stride}, shape {shape}, boundary {boundary!r}"
        )
    axes = tuple(range(-dims, 0))
    total: Tensor | float = 0.0
    for part, shift in zip(x, itertools.product(*map(range, strides)), strict=True):
        if boundary == "circular":
            total = total + part.roll([-s for s in shift], axes)
        else:
            total = (
                total + part[(..., *(slice(s, s + n) for s, n in zip(shift, shape, strict=True)))]
            )
    return total / len(x)
