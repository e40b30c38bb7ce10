"""Dictionaries in one to three dimensions, and their dense matrices, for the tests."""

import itertools
import math

import pytest
import torch

from tutorial_lib.canvas import BOUNDARIES
from tutorial_lib.convolutional import METHODS

F64 = torch.float64
# maps, channels, kernel, shape, stride: one to three dimensions, shared and unshared, strides that
# divide the kernel and strides that do not
CASES = {
    "1d": (3, 1, (4,), (9,), 1),
    "1d, stride": (3, 2, (5,), (12,), 3),
    "2d": (4, 1, (3, 2), (6, 7), 1),
    "2d, three channels": (5, 3, (3, 3), (5, 6), 1),
    "2d, stride": (6, 1, (3, 4), (6, 8), (3, 2)),
    "2d, channels and stride": (7, 2, (3, 3), (6, 4), 2),
    "3d": (2, 1, (2, 3, 2), (4, 4, 5), 1),
    "3d, stride": (5, 1, (3, 2, 3), (4, 4, 6), (1, 2, 2)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)
each_method = pytest.mark.parametrize("method", METHODS)


def randn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bank(maps, channels, *kernel, seed=0, dtype=F64):
    f = randn(maps, channels, *kernel, seed=seed, dtype=dtype)
    return f / f.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in f.shape[1:]))


def dense(filters, shape, boundary, stride):
    """The matrix of D, entry by entry from the definition of a convolution."""
    d = len(shape)
    strides = (stride,) * d if isinstance(stride, int) else stride
    kernel = filters.shape[2:]
    if boundary == "circular":
        starts = [range(0, n, q) for n, q in zip(shape, strides, strict=True)]
    else:  # from the first that reaches the image, on the grid, to the last
        ahead = (math.ceil((k - 1) / q) * q for k, q in zip(kernel, strides, strict=True))
        starts = [range(-a, n, q) for a, n, q in zip(ahead, shape, strides, strict=True)]
    columns = []
    for atom, start in itertools.product(filters, itertools.product(*starts)):
        image = torch.zeros(filters.shape[1], *shape, dtype=filters.dtype)
        for tap in itertools.product(*map(range, kernel)):
            at = [s + t for s, t in zip(start, tap, strict=True)]
            if boundary == "circular":
                at = [i % n for i, n in zip(at, shape, strict=True)]
            if all(0 <= i < n for i, n in zip(at, shape, strict=True)):
                image[(slice(None), *at)] += atom[(slice(None), *tap)]
        columns.append(image.flatten())
    return torch.stack(columns, 1)


def problem(case, boundary, *, seed=0, dtype=F64):
    maps, channels, kernel, shape, stride = case
    f = bank(maps, channels, *kernel, seed=seed, dtype=dtype)
    where = {"boundary": boundary, "stride": stride}
    return f, randn(channels, *shape, seed=seed + 1, dtype=dtype), where
