"""Filters of a convolutional dictionary, learned from images.

Shapes, boundaries and strides are those of `convolutional`.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .canvas import Boundary, Stride, _fft, _ifft, _kernel, _mix, _plan, _spectrum
from .convolutional import conv_dictionary
from .convolutional_coding import csc_admm
from .operators import LinearOperator, _norm
from .prox import Weight
from .solvers import _check


class LearnedFilters(NamedTuple):
    """Filters (maps, channels, *kernel), maps (*batch, maps, *grid), F after each step."""

    filters: Float[Tensor, "..."]
    codes: Float[Tensor, "..."]
    history: Float[Tensor, " steps"]


@torch.no_grad()
def update_filters(
    y: Float[Tensor, "..."],
    codes: Float[Tensor, "..."],
    filters: Float[Tensor, "maps channels *kernel"],
    *,
    boundary: Boundary = "circular",
    stride: Stride = 1,
    steps: int = 10,
) -> Float[Tensor, "maps channels *kernel"]:
    """min over filters of 1/2 ||y - sum_m d_m * z_m||^2, ||d_m|| <= 1, the maps fixed.

    Accelerated projected gradient by FFT, with a step from the norm of d -> sum d_m * z_m; where
    momentum would raise the error, a plain step is taken: the error never rises.

    Args:
        y: images (*batch, channels, *shape).
        codes: their maps (*batch, maps, *grid).
        filters: where to start; longer ones are first scaled to length one.
        boundary, stride: see `conv_dictionary`.
        steps: at least 1.

    Raises:
        ValueError: as `conv_dictionary`; shapes that do not fit, steps < 1.

    Reference: C. Garcia-Cardona, B. Wohlberg, Convolutional dictionary learning: a comparative
    review and new algorithms, IEEE Trans. Computational Imaging, 2018.

    >>> y = torch.tensor([[0.0, 0.6, 0.8, 0.0]])
    >>> z = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    >>> update_filters(y, z, torch.tensor([[[1.0, 0.0]]]), steps=50)
    tensor([[[0.6000, 0.8000]]])
    """
    d = len(_kernel(filters))
    plan = _plan(filters, y.shape[-d:], boundary, stride)
    D = conv_dictionary(filters, plan.shape, boundary=boundary, stride=stride)
    _check(D, y, 0.0, codes)
    if steps < 1:
        raise ValueError(f"steps = {steps}: at least 1 is needed")
    y = y.reshape(-1, *y.shape[-d - 1 :])
    Z = _fft(codes.reshape(-1, *D.shape_in), plan)  # (images, maps, *frequencies)

    def forward(f: Tensor) -> Tensor:
        return plan.window(_ifft(_mix(_spectrum(plan, f), Z), plan))

    def adjoint(r: Tensor) -> Tensor:
        R = _fft(plan.unwindow(r), plan)
        product = torch.einsum("bm...,bc...->mc...", Z.conj(), R)
        return plan.crop_filters(_ifft(product, plan))

    E = LinearOperator(forward, adjoint, tuple(filters.shape), tuple(y.shape))
    slack = 0.1
    norm = _norm(E, y.dtype, y.device, slack).value
    step = (1 - slack) ** 2 / norm**2 if norm > 0 else 0.0

    def descend(f: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f = _project(f - step * adjoint(image - y))
        image = forward(f)
        return f, image, (y - image).square().sum()

    f = _project(filters)
    image = forward(f)
    error = (y - image).square().sum()
    ahead, image_ahead, t = f, image, 1.0
    for _ in range(steps):
        new, new_image, new_error = descend(ahead, image_ahead)
        if new_error > error and t > 1:
            t = 1.0
            new, new_image, new_error = descend(f, image)
        if new_error > error:  # at the minimum, to rounding
            break
        following = (1 + math.sqrt(1 + 4 * t * t)) / 2
        beta, t = (t - 1) / following, following
        ahead, image_ahead = new + beta * (new - f), new_image + beta * (new_image - image)
        f, image, error = new, new_image, new_error
    return f


def learn_filters(
    y: Float[Tensor, "..."],
    filters: Float[Tensor, "maps channels *kernel"],
    lam: Weight,
    *,
    boundary: Boundary = "circular",
    stride: Stride = 1,
    steps: int = 50,
    inner: int = 10,
) -> LearnedFilters:
    """min over filters and maps of F, ||d_m|| <= 1, by alternation from the given filters.

    A step is `inner` steps of ADMM from the last maps, and `inner` of `update_filters`.

    Args:
        y: images (*batch, channels, *shape), best without their low frequencies
            (`split_lowpass`).
        filters: where to start, such as random ones.
        lam, boundary, stride: see `csc_admm`.
        steps, inner: at least 1.

    Raises:
        ValueError: as `csc_admm` and `update_filters`.

    >>> y = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    >>> F = learn_filters(y, torch.randn(4, 1, 8), 0.3, steps=5).history
    >>> bool(F[-1] < F[0])
    True
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: at least 1 is needed")
    where = {"boundary": boundary, "stride": stride}
    filters, codes, rho, history = _project(filters), None, None, []
    for _ in range(steps):
        coding = csc_admm(
            *(y, filters, lam), z0=codes, rho=rho, max_steps=inner, rtol=0, adapt=True, **where
        )
        codes, rho = coding.value, float(coding.rho.mean())
        filters = update_filters(y, codes, filters, steps=inner, **where)
        D = conv_dictionary(filters, y.shape[-(filters.ndim - 2) :], **where)
        fit = (y - D(codes)).square().sum() / 2
        history.append(fit + (lam * codes).abs().sum())
    return LearnedFilters(filters, codes, torch.stack(history))


def _project(filters: Tensor) -> Tensor:
    """Each filter, all channels together, into the unit ball."""
    length = torch.linalg.vector_norm(filters.flatten(1), dim=1).clamp(min=1)
    return filters / length.reshape(-1, *(1 for _ in filters.shape[1:]))
