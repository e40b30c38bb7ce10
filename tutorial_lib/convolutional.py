"""Convolutional dictionaries in one, two or three dimensions: an image from few maps and filters.

An image y (*batch, channels, *shape) is near D z = sum_m d_m * z_m, with maps z (*batch, maps,
*grid) and filters (maps, channels, *kernel), the weight of a `conv_transpose`. The number of kernel
axes is the dimension; the code is the same for all. Maps are *shared* by the channels: a cube of 31
bands as 31 channels of 2-D images has one set of 2-D maps, as one channel of a 3-D image it has
maps that slide along the spectrum too.

boundary: "circular", or "padded": the image is a window of a larger one, and every atom that
reaches into the window has a place in the maps. stride: atoms start at every stride-th sample of
each axis, one for all axes or one for each. Entry j of a map puts the first sample of the atom at
j * stride.

Codes are found by `convolutional_coding.csc_admm`, or by `solvers.ista` and `solvers.fista` with
`conv_dictionary`; filters by `convolutional_learning`. What strides need stands in
`convolutional_shifts`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .canvas import (
    Boundary,
    Stride,
    _analysis,
    _eigen,
    _fft,
    _ifft,
    _mix,
    _plan,
    _spectrum,
    _synthesis,
    _unmix,
)
from .operators import LinearOperator, _norm
from .prox import _check_values

Method = Literal["fft", "space"]
METHODS: tuple[str, ...] = ("fft", "space")


def conv_dictionary(
    filters: Float[Tensor, "maps channels *kernel"],
    shape: Sequence[int],
    *,
    boundary: Boundary = "circular",
    stride: Stride = 1,
    method: Method = "fft",
) -> LinearOperator:
    """D: maps (*batch, maps, *grid) -> images (*batch, channels, *shape), z -> sum_m d_m * z_m.

    Its adjoint correlates the image with every filter. For "circular" the grid has
    shape / stride places an axis; for "padded" the ceil((k - 1) / stride) that start before the
    image are added, and the image may have any shape.

    Args:
        filters: (maps, channels, *kernel), one, two or three kernel axes.
        shape: of the image, without its channels.
        boundary, stride: see the module.
        method: "fft", whose circular gram is one product per frequency, or "space", by PyTorch's
            convolutions, which is differentiable in the filters at every order and cheaper for
            small or strided filters. Both are the same map.

    Raises:
        ValueError: filters with NaN, or with as many kernel axes as shape has not; unknown
            boundary or method; stride below 1, or a shape that it does not divide ("circular"); a
            kernel larger than the image ("circular").

    >>> D = conv_dictionary(torch.ones(4, 1, 3, 3), (8, 8), boundary="padded")
    >>> D.shape_in, D.shape_out
    ((4, 10, 10), (1, 8, 8))
    """
    plan = _plan(filters, shape, boundary, stride)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: allowed are {', '.join(METHODS)}")
    kind = {"dtype": filters.dtype, "device": filters.device}
    shapes = (len(filters), *plan.grid), (filters.shape[1], *plan.shape)
    if method == "space":
        maps = (lambda z: _synthesis(plan, filters, z)), (lambda y: _analysis(plan, filters, y))
        return LinearOperator(*maps, *shapes, **kind)
    hat = _spectrum(plan, filters)

    def forward(z: Tensor) -> Tensor:
        return plan.window(_ifft(_mix(hat, _fft(z, plan)), plan))

    def adjoint(y: Tensor) -> Tensor:
        return _ifft(_unmix(hat, _fft(plan.unwindow(y), plan)), plan)

    def gram(z: Tensor) -> Tensor:
        return _ifft(_unmix(hat, _mix(hat, _fft(z, plan))), plan)

    return LinearOperator(forward, adjoint, *shapes, None if plan.padded else gram, **kind)


def conv_norm(
    filters: Float[Tensor, "maps channels *kernel"],
    shape: Sequence[int],
    *,
    boundary: Boundary = "circular",
    stride: Stride = 1,
    rtol: float = 1e-2,
) -> float:
    """||D|| at the actual size and boundary; a step of ISTA is 1 / conv_norm(...)**2.

    "circular": exact, the largest singular value over all frequencies. "padded": by
    `operators.operator_norm`, at most rtol too small.

    Args, raises:
        as `conv_dictionary`.

    >>> round(conv_norm(torch.ones(2, 1, 3), (8,)), 4)  # at frequency 0: sqrt(2) * 3
    4.2426
    """
    plan = _plan(filters, shape, boundary, stride)
    if not plan.padded:
        return math.sqrt(max(float(_eigen(_spectrum(plan, filters))[0].max()), 0.0))
    D = conv_dictionary(filters, shape, boundary=boundary, stride=stride)
    return _norm(D, filters.dtype, filters.device, rtol).value


def split_lowpass(
    y: Float[Tensor, "..."], weight: float = 5.0, *, dims: int = 2
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """argmin_l 1/2 ||y - l||^2 + weight/2 ||gradient of l||^2, and y - l: what is coded.

    Exact, with no flow across the border: one product in the cosine basis.

    Args:
        y: images, the last `dims` axes those of an image.
        weight: nonnegative; its root is about the width of the low-pass in samples.
        dims: axes that are smoothed.

    Returns:
        Low-pass l and high-pass y - l, both as y.

    Raises:
        ValueError: NaN, negative weight, dims out of range.

    >>> low, high = split_lowpass(torch.full((1, 4, 4), 0.5))
    >>> torch.allclose(low, torch.full((1, 4, 4), 0.5)), float(high.abs().max()) < 1e-6
    (True, True)
    """
    _check_values(y, "y")
    if not weight >= 0:
        raise ValueError(f"weight = {weight}: it must be nonnegative")
    if not 1 <= dims <= y.ndim:
        raise ValueError(f"dims = {dims}: 1 to {y.ndim} are allowed for y of {tuple(y.shape)}")
    axes = tuple(range(-dims, 0))
    even = y
    multiplier: Tensor | float = 1.0
    for axis in axes:
        n = y.shape[axis]
        even = torch.cat([even, even.flip(axis)], axis)
        count = n + 1 if axis == -1 else 2 * n
        f = torch.arange(count, dtype=torch.float64, device=y.device)
        laplace = 2 - 2 * torch.cos(math.pi * f / n)
        multiplier = multiplier + weight * laplace.reshape(-1, *(1 for _ in range(-axis - 1)))
    hat = torch.fft.rfftn(even, dim=axes) / multiplier.to(y.dtype)
    low = torch.fft.irfftn(hat, s=even.shape[-dims:], dim=axes)
    low = low[(..., *(slice(y.shape[axis]) for axis in axes))]
    return low, y - low
