"""Plug-and-play: a denoiser in the place of a penalty, by half-quadratic splitting.

To minimise 1/(2 sigma^2) ||y - H x||^2 + R(x), split the unknown in two, x for the data and z for
the penalty, tied by 1/(2 s^2) ||x - z||^2 with s falling towards sigma. Then in turn

    x = argmin_x ||y - H x||^2 + (sigma / s)^2 ||x - z||^2        `data_step`, linear
    z = argmin_z 1/(2 s^2) ||z - x||^2 + R(z)                     a denoiser for noise of level s

Denoisers and noise estimators are callables on a batch: nothing here knows about networks.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .operators import LinearOperator, NotConvergedWarning
from .prox import _check_values, _check_weight
from .solvers import Solution, _lift, _sum

Denoiser = Callable[[Tensor, Tensor], Tensor]  # images (n, h, w), their levels (n,) -> (n, h, w)
Estimator = Callable[[Tensor], Tensor]  # images (n, h, w) -> levels (n,)
Callback = Callable[[int, Tensor, Tensor], object]
Inverse = Callable[[Tensor, Tensor], Tensor]


class Restoration(NamedTuple):
    """What a plug-and-play iteration returns.

    Args:
        value: the last denoised z, clipped to [0, 1]: (*batch, *shape_in).
        fitted: the last x, the one before that denoising, clipped.
        steps: steps taken, those of the slowest batch element.
        history: (steps + 1, *batch), noise levels: that of y, then that of each x; NaN after an
            element has stopped.
        converged: (*batch), whether the level of x has come down to that of y.
    """

    value: Float[Tensor, "..."]
    fitted: Float[Tensor, "..."]
    steps: int
    history: Float[Tensor, "..."]
    converged: Bool[Tensor, "..."]


def plug_and_play(
    y: Float[Tensor, "..."],
    H: LinearOperator,
    *,
    denoise: Denoiser,
    estimate: Estimator,
    lam: float | int = 0.23,
    strength: float | int = 2.0,
    start: float | int = 10.0,
    decay: float | int | None = None,
    sigma: float | None = None,
    z0: Float[Tensor, "..."] | None = None,
    max_steps: int = 30,
    callback: Callback | None = None,
) -> Restoration:
    """Restore x from y = H x + noise with a schedule that the noise estimator makes on the way.

    beta_0 = estimate(y), beta_1 = start beta_0, z_0 = y; for k = 1, 2, ... while beta_k > beta_0

        x_k = argmin_x 1/2 ||y - H x||^2 + lam/2 (beta_0 / beta_k)^2 ||x - z_{k-1}||^2,
        beta_{k+1} = estimate(x_k),
        z_k = denoise(x_k, strength beta_{k+1}).

    Nothing says that beta falls, and max_steps may be what ends it. With a decay below 1,
    beta_{k+1} = min(estimate(x_k), decay beta_k), and at most 1 + log(start) / log(1 / decay)
    steps are needed, whatever `estimate` says.

    Args:
        y: (*batch, *shape_out).
        H: shape_in -> shape_out. x_k is exact for circular convolutions (two FFTs), by conjugate
            gradients for any other operator.
        denoise: images (n, *shape_in) and their noise levels (n,) -> images.
        estimate: images (n, *shape_in) -> their noise levels (n,), in the same unit.
        lam: weight, at least 0 and where H loses something above 0.
        strength: the denoiser is told this multiple of the level, for the noise of x_k is not
            white.
        start: beta_1 / beta_0, above 1.
        decay: in (0, 1]; None, the published rule, lets beta go where `estimate` says.
        sigma: beta_0, where it is known, or where y is no image to estimate it from.
        z0: start (*batch, *shape_in); None: y if H keeps the shape, else H^T y.
        max_steps: at least 1.
        callback: called after each step with k, x_k and z_k, (*batch, *shape_in), not clipped.

    Returns:
        `Restoration`. Each batch element is restored as if it were alone, if `denoise` and
        `estimate` treat it so.

    Raises:
        ValueError: NaN or integers in y or z0, shapes that do not fit, numbers outside their
            ranges; a level of y that is not positive; a level or an image from `estimate` or
            `denoise` that is NaN, infinite or of another shape.

    Warns:
        NotConvergedWarning: once, if an element did not come down to beta_0 in max_steps.

    Reference: J.-J. Huang and P. L. Dragotti, WINNet: wavelet-inspired invertible network for image
    denoising, IEEE Trans. Image Process. 31, 2022.

    >>> H = LinearOperator(lambda x: x, lambda y: y, (4, 4), (4, 4))
    >>> half = lambda x, level: x.mean((1, 2), keepdim=True) + (x - x.mean()) / 2
    >>> run = plug_and_play(torch.eye(4), H, denoise=half, estimate=lambda x: x.std((1, 2)))
    >>> run.steps, bool(run.converged)
    (1, True)
    """
    for name, number, fits in (
        ("lam", lam, 0 <= lam < math.inf),
        ("strength", strength, 0 < strength < math.inf),
        ("start", start, 1 < start < math.inf),
        ("decay", decay, decay is None or 0 < decay <= 1),
    ):
        if not fits:
            allowed = {"lam": "at least 0", "start": "above 1", "decay": "in (0, 1]"}
            raise ValueError(f"{name} = {number}: expected {allowed.get(name, 'positive')}")
    b, z, batch = _begin(y, H, z0, max_steps)
    if sigma is None:
        first = _levels(estimate, y.reshape(-1, *H.shape_out), "y")
    else:
        first = b.new_full(b.shape[:1], sigma)
    if not bool((first > 0).all()):
        raise ValueError(f"noise level of y = {first.tolist()}: expected positive, give sigma")

    solve = _inverse(H, b)
    beta, rows = start * first, torch.arange(len(b), device=b.device)
    x, converged, history = z, torch.zeros_like(rows, dtype=torch.bool), [first]
    k = 0
    while len(rows) and k < max_steps:
        k += 1
        weight = lam * (first[rows] / beta).square()
        x_k = solve(b[rows] + _lift(weight, H.shape_in) * z[rows], weight)
        found = _levels(estimate, x_k, f"x_{k}")
        beta = found if decay is None else torch.minimum(found, decay * beta)
        z_k = _denoised(denoise, x_k, strength * beta, k)
        x, z = x.index_copy(0, rows, x_k), z.index_copy(0, rows, z_k)
        history.append(torch.full_like(first, math.nan).index_copy(0, rows, beta))
        if callback is not None:
            callback(k, x.reshape(*batch, *H.shape_in), z.reshape(*batch, *H.shape_in))
        done = beta <= first[rows]
        converged[rows] = done
        rows, beta = rows[~done], beta[~done]
    if len(rows):
        warnings.warn(
            f"plug_and_play: {len(rows)} of {len(converged)} did not come down to the noise level "
            f"of y in {max_steps} steps: it is {float((beta / first[rows]).max()):.2f} times that",
            NotConvergedWarning,
            stacklevel=2,
        )
    return _result(z, x, k, history, converged, batch)


def plug_and_play_scheduled(
    y: Float[Tensor, "..."],
    H: LinearOperator,
    *,
    denoise: Denoiser,
    sigma: float | int,
    levels: Sequence[float],
    lam: float | int = 0.23,
    z0: Float[Tensor, "..."] | None = None,
    callback: Callback | None = None,
) -> Restoration:
    """The same splitting with the levels s_1, ..., s_K fixed in advance.

    x_k = argmin_x 1/2 ||y - H x||^2 + lam/2 (sigma / s_k)^2 ||x - z_{k-1}||^2,
    z_k = denoise(x_k, s_k).

    Args:
        y, H, denoise, lam, z0, callback: as in `plug_and_play`.
        sigma: noise level of y, positive.
        levels: positive, in the unit of y; see `log_levels`.

    Returns:
        `Restoration`, of which history is sigma and the levels; nothing is tested, so that all of
        `converged` is False.

    Raises:
        ValueError: as `plug_and_play`.

    Reference: K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte, Plug-and-play image
    restoration with deep denoiser prior, IEEE TPAMI 44, 2022.
    """
    for name, number in (("sigma", sigma), ("levels", min(levels, default=0)), ("lam", lam)):
        if not (0 < number < math.inf or (name, number) == ("lam", 0)):
            raise ValueError(f"{name} = {number}: expected positive and finite")
    b, z, batch = _begin(y, H, z0, len(levels))
    solve, x = _inverse(H, b), z
    for k, level in enumerate(levels, 1):
        weight = b.new_full(b.shape[:1], lam * (sigma / level) ** 2)
        x = solve(b + _lift(weight, H.shape_in) * z, weight)
        z = _denoised(denoise, x, torch.full_like(weight, level), k)
        if callback is not None:
            callback(k, x.reshape(*batch, *H.shape_in), z.reshape(*batch, *H.shape_in))
    history = [b.new_full(b.shape[:1], s) for s in (sigma, *levels)]
    never = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    return _result(z, x, len(levels), history, never, batch)


def log_levels(sigma: float, *, steps: int = 8, start: float = 49 / 255) -> list[float]:
    """`steps` noise levels from `start` down to sigma, equally spaced in their logarithm.

    Raises:
        ValueError: steps < 2, sigma not positive or not below start.

    >>> [round(255 * s, 1) for s in log_levels(2.55 / 255, steps=4)]
    [49.0, 18.3, 6.8, 2.5]
    """
    if steps < 2 or not 0 < sigma < start:
        raise ValueError(
            f"steps = {steps}, sigma = {sigma}, start = {start}: "
            "expected at least 2 steps and 0 < sigma < start"
        )
    return [start * (sigma / start) ** (k / (steps - 1)) for k in range(steps)]


def data_step(
    y: Float[Tensor, "..."],
    H: LinearOperator,
    z: Float[Tensor, "..."],
    weight: float | int | Tensor,
) -> Float[Tensor, "..."]:
    """argmin_x 1/2 ||y - H x||^2 + weight/2 ||x - z||^2 = (H^T H + weight)^-1 (H^T y + weight z).

    The proximal map of the data term at z, with step 1 / weight. A circular convolution is
    recognised and inverted frequency by frequency; for any other operator conjugate gradients run
    to a relative residual of 1e-4.

    Args:
        y: (*batch, *shape_out).
        H: shape_in -> shape_out.
        z: (*batch, *shape_in).
        weight: positive, a number or one for each batch element.

    Raises:
        ValueError: NaN, integers, shapes that do not fit, a negative weight.

    >>> keep = torch.tensor([True, False, True])
    >>> H = LinearOperator(lambda x: x * keep, lambda y: y * keep, (3,), (3,))
    >>> data_step(torch.tensor([1.0, 0.0, 2.0]), H, torch.full((3,), 5.0), 1.0)
    tensor([3.0000, 5.0000, 3.5000])
    """
    _check_weight(weight, None, "weight")
    b, z, batch = _begin(y, H, z, 1)
    weight = torch.as_tensor(weight, dtype=b.dtype, device=b.device).expand(batch).reshape(-1)
    x = _inverse(H, b)(b + _lift(weight, H.shape_in) * z, weight)
    return x.reshape(*batch, *H.shape_in)


def transfer_function(H: LinearOperator, like: Tensor) -> Tensor | None:
    """The factors of a circular convolution in the (real) Fourier domain; None if H is none.

    They are the transform of H's impulse response; that H really multiplies by them is tried on
    one random signal, for which two different operators agree with probability zero.

    Args:
        H: shape_in -> shape_out.
        like: gives dtype and device.
    """
    if H.shape_in != H.shape_out:
        return None
    dims = tuple(range(-len(H.shape_in), 0))
    impulse = torch.zeros(H.shape_in, dtype=like.dtype, device=like.device)
    impulse[(0,) * impulse.ndim] = 1
    h = torch.fft.rfftn(H(impulse), dim=dims)
    probe = torch.randn(H.shape_in, generator=torch.Generator().manual_seed(0)).to(like)
    product = torch.fft.irfftn(h * torch.fft.rfftn(probe, dim=dims), s=H.shape_in, dim=dims)
    close = (H(probe) - product).norm() <= 100 * torch.finfo(like.dtype).eps * probe.norm()
    return h if bool(close) else None


def conjugate_gradients(
    A: LinearOperator,
    b: Float[Tensor, "..."],
    *,
    x0: Float[Tensor, "..."] | None = None,
    rtol: float = 1e-5,
    max_steps: int = 1000,
) -> Solution:
    """Solve A x = b, A symmetric and positive definite: argmin_x 1/2 <x, A x> - <b, x>.

    ||x_k - x||_A <= 2 ((sqrt(c) - 1) / (sqrt(c) + 1))^k ||x_0 - x||_A with c the condition number
    of A, and exact after as many steps as A has different eigenvalues, but for rounding.

    Args:
        A: shape_in -> the same shape; only A(x) is used. It may scale each batch element by its
            own number.
        b: (*batch, *shape_in).
        x0: start, of the shape of b; None starts from zero.
        rtol: an element stops, and keeps its value, when ||b - A x|| <= rtol ||b||.
        max_steps: at least 1.

    Returns:
        `solvers.Solution`; history is the relative residual after each step.

    Raises:
        ValueError: NaN, integers, shapes that do not fit, rtol not positive, max_steps < 1; an A
            that shows itself not positive definite, or returns NaN.

    Warns:
        NotConvergedWarning: once, if an element did not meet rtol.

    Reference: M. R. Hestenes and E. Stiefel, Methods of conjugate gradients for solving linear
    systems, J. Res. Natl. Bur. Stand. 49, 1952.

    >>> A = LinearOperator(lambda x: 2 * x, lambda y: 2 * y, (3,), (3,))
    >>> conjugate_gradients(A, torch.tensor([2.0, 4.0, 6.0])).value
    tensor([1., 2., 3.])
    """
    _check_values(b, "b")
    n = len(A.shape_in)
    if A.shape_in != A.shape_out or b.shape[-n:] != A.shape_in:
        raise ValueError(
            f"b of shape {tuple(b.shape)}, A from {A.shape_in} to {A.shape_out}: one trailing "
            "shape is needed"
        )
    if not rtol > 0 or max_steps < 1:
        raise ValueError(f"rtol = {rtol}, max_steps = {max_steps}: rtol > 0, max_steps >= 1")
    if x0 is not None:
        _check_values(x0, "x0")
        if x0.shape != b.shape:
            raise ValueError(f"x0 of shape {tuple(x0.shape)}, b of shape {tuple(b.shape)}")
    x = torch.zeros_like(b) if x0 is None else x0
    r = b if x0 is None else b - A(x0)
    p, rho = r, _sum(r * r, A.shape_in)
    size = _sum(b * b, A.shape_in)
    small, history, k = rtol**2 * size, [], 0
    active = rho > small
    while bool(active.any()) and k < max_steps:
        k += 1
        q = A(p)
        curvature = _sum(p * q, A.shape_in)
        if not bool((curvature > 0)[active].all()):
            raise ValueError(
                f"A is not positive definite: <p, A p> = {float(curvature[active].min())}"
            )
        alpha = _lift(torch.where(active, rho / curvature, 0), A.shape_in)
        x, r = x + alpha * p, r - alpha * q
        rho, before = _sum(r * r, A.shape_in), rho
        history.append(torch.where(active, (rho / size).sqrt(), math.nan))
        active = active & (rho > small)
        p = r + _lift(torch.where(active, rho / before, 0), A.shape_in) * p
    if bool(active.any()):
        warnings.warn(
            f"conjugate_gradients: {int(active.sum())} of {active.numel()} did not reach "
            f"rtol = {rtol} in {max_steps} steps: the worst is at "
            f"{float(history[-1][active].max()):.1e}",
            NotConvergedWarning,
            stacklevel=2,
        )
    trace = torch.stack(history) if history else x.new_empty(0, *rho.shape)
    return Solution(x, k, trace, ~active)


def _inverse(H: LinearOperator, like: Tensor) -> Inverse:
    """(v, weight) -> (H^T H + weight)^-1 v, for v (n, *shape_in) and weight (n,)."""
    h = transfer_function(H, like)
    shape = H.shape_in
    if h is None:

        def solve(v: Tensor, weight: Tensor) -> Tensor:
            w = _lift(weight, shape)
            apply = lambda x: H.gram(x) + w * x  # noqa: E731
            return conjugate_gradients(
                LinearOperator(apply, apply, shape, shape), v, rtol=1e-4
            ).value
    else:
        dims, power = tuple(range(-len(shape), 0)), h.abs().square()

        def solve(v: Tensor, weight: Tensor) -> Tensor:
            v_hat = torch.fft.rfftn(v, dim=dims) / (power + _lift(weight, shape))
            return torch.fft.irfftn(v_hat, s=shape, dim=dims)

    return solve


def _begin(
    y: Tensor, H: LinearOperator, z: Tensor | None, steps: int
) -> tuple[Tensor, Tensor, torch.Size]:
    """H^T y and z with one batch axis, and the batch shape."""
    _check_values(y, "y")
    n = len(H.shape_out)
    if y.ndim < n or y.shape[-n:] != H.shape_out:
        raise ValueError(f"y of shape {tuple(y.shape)}: expected (*batch, *{H.shape_out})")
    if steps < 1:
        raise ValueError(f"max_steps = {steps}: at least 1 step is needed")
    batch = y.shape[: y.ndim - n]
    b = H.adjoint(y)
    if z is None:
        z = y if H.shape_in == H.shape_out else b
    _check_values(z, "z0")
    if z.shape != b.shape:
        raise ValueError(f"z0 of shape {tuple(z.shape)}: expected {tuple(b.shape)}")
    return b.reshape(-1, *H.shape_in), z.reshape(-1, *H.shape_in), batch


def _levels(estimate: Estimator, x: Tensor, name: str) -> Tensor:
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} is not finite: where H loses something, lam must be positive")
    levels = estimate(x)
    if levels.shape != x.shape[:1] or not bool((levels.isfinite() & (levels >= 0)).all()):
        raise ValueError(
            f"estimate({name}) = {levels.tolist()}: expected {len(x)} finite levels of at least 0"
        )
    return levels


def _denoised(denoise: Denoiser, x: Tensor, levels: Tensor, k: int) -> Tensor:
    z = denoise(x, levels)
    if z.shape != x.shape or not bool(z.isfinite().all()):
        raise ValueError(
            f"denoise(x_{k}) of shape {tuple(z.shape)}: expected finite values of shape "
            f"{tuple(x.shape)}"
        )
    return z


def _result(
    z: Tensor, x: Tensor, steps: int, history: list[Tensor], converged: Tensor, batch: torch.Size
) -> Restoration:
    z, x = (u.clamp(0, 1).reshape(*batch, *u.shape[1:]) for u in (z, x))
    trace = torch.stack(history).reshape(-1, *batch)
    return Restoration(z, x, steps, trace, converged.reshape(batch))
