"""Linear operators: a forward map, its exact adjoint, and the fused A^T A that solvers iterate.

An operator acts on the trailing axes; leading axes are batch axes everywhere.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pywt
import torch
from jaxtyping import Bool, Float
from scipy.fft import next_fast_len
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

from .filterbank import FilterBank, Mode, Wavelet, filter_bank
from .prox import _check_values
from .wavelets import (
    _check_level,
    _is_count,
    ravel_coeffs,
    unravel_coeffs,
    wavedec,
    wavedec2,
    waverec,
    waverec2,
)

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LinearOperator:
    """A linear map A with its adjoint: `A(x)`, `A.adjoint(y)`, `A.gram(x)`, `A.T`, `A @ B`.

    <A x, y> = <x, A^T y> for all x, y. All maps take leading batch axes and check the trailing
    ones; everything is differentiable.

    Args:
        forward: (*batch, *shape_in) -> (*batch, *shape_out).
        adjoint: (*batch, *shape_out) -> (*batch, *shape_in).
        shape_in, shape_out: trailing shapes.
        gram: A^T A in one piece, where that is cheaper than the two maps after each other.
        dtype, device: of the tensors that A holds; None if it holds none, or takes any.
        layout: of the coefficients that a `wavelet_synthesis` takes, for `unravel_coeffs`.

    Raises (each map):
        ValueError: wrong trailing shape, dtype or device.

    >>> A = LinearOperator(lambda x: x.flip(-1), lambda y: y.flip(-1), (3,), (3,))
    >>> A(torch.tensor([1.0, 2.0, 3.0])), (A.T @ A)(torch.tensor([1.0, 2.0, 3.0]))
    (tensor([3., 2., 1.]), tensor([1., 2., 3.]))
    """

    forward: Apply
    adjoint: Apply
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    gram: Apply | None = None
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    layout: tuple | None = None

    def __post_init__(self) -> None:
        forward, adjoint = self.forward, self.adjoint
        maps = {
            "forward": (forward, self.shape_in),
            "adjoint": (adjoint, self.shape_out),
            "gram": (self.gram or (lambda x: adjoint(forward(x))), self.shape_in),
        }
        for name, (apply, shape) in maps.items():
            checked = _checked(apply, name, shape, self.dtype, self.device)
            object.__setattr__(self, name, checked)

    def __call__(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self.forward(x)

    @property
    def T(self) -> "LinearOperator":
        """The adjoint as an operator."""
        shapes = self.shape_out, self.shape_in
        return LinearOperator(
            self.adjoint, self.forward, *shapes, dtype=self.dtype, device=self.device
        )

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        """x -> self(other(x)), with the gram other^T self^T self other."""
        if self.shape_in != other.shape_out:
            raise ValueError(
                f"cannot compose: the left operator takes {self.shape_in}, "
                f"the right one gives {other.shape_out}"
            )
        held = []
        for left, right in ((self.dtype, other.dtype), (self.device, other.device)):
            if None not in (left, right) and left != right:
                raise ValueError(f"cannot compose: the left operator holds {left}, not {right}")
            held.append(left or right)
        return LinearOperator(
            lambda x: self.forward(other.forward(x)),
            lambda y: other.adjoint(self.adjoint(y)),
            other.shape_in,
            self.shape_out,
            lambda x: other.adjoint(self.gram(other.forward(x))),
            *held,
            other.layout,
        )


def identity(shape: Sequence[int]) -> LinearOperator:
    """The identity on tensors of trailing shape `shape`.

    Args:
        shape: (n,), (h, w), ...

    Raises:
        ValueError: no axis, or an empty one.
    """
    shape = _shape(shape)
    return LinearOperator(_same, _same, shape, shape, _same)


def matrix(M: Float[Tensor, "m n"]) -> LinearOperator:
    """x -> M x on vectors of length n.

    Args:
        M: (m, n); differentiable with respect to M as well.

    Raises:
        ValueError: not a matrix, integer or NaN entries.

    >>> matrix(torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 0.0]])).adjoint(torch.ones(3))
    tensor([2., 3.])
    """
    _check_values(M, "M")
    if M.ndim != 2:
        raise ValueError(f"M of shape {tuple(M.shape)}: a matrix (m, n) is needed")
    m, n = M.shape
    gram = None
    if n <= 2 * m:  # n^2 multiplications instead of 2 m n
        MtM = M.mT @ M
        gram = lambda x: x @ MtM  # noqa: E731  (symmetric)
    return LinearOperator(
        lambda x: x @ M.mT, lambda y: y @ M, (n,), (m,), gram, dtype=M.dtype, device=M.device
    )


def mask(keep: Bool[Tensor, "*shape"] | Float[Tensor, "*shape"]) -> LinearOperator:
    """x -> keep * x: False, or 0, where a sample is missing. Self-adjoint, gram = keep^2.

    Args:
        keep: boolean, or real weights; its shape is that of the signals.

    Raises:
        ValueError: integer or NaN weights; no axis, or an empty one.

    >>> mask(torch.tensor([True, False, True]))(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 0., 3.])
    """
    if keep.dtype == torch.bool:
        square, dtype = keep, None
    else:
        _check_values(keep, "keep")
        square, dtype = keep.square(), keep.dtype
    shape = _shape(keep.shape)

    def apply(x: Tensor) -> Tensor:
        return x * keep

    return LinearOperator(
        apply, apply, shape, shape, lambda x: x * square, dtype=dtype, device=keep.device
    )


def subsample(shape: Sequence[int], *, factor: int | Sequence[int]) -> LinearOperator:
    """Keep every `factor`-th sample along each axis of `shape`, starting with the first.

    Args:
        shape: trailing shape of the signals.
        factor: at least 1; one for all axes, or one for each.

    Raises:
        ValueError: a factor that is not a whole number of at least 1, or not one for each axis.

    >>> subsample((5,), factor=2)(torch.arange(5.0))
    tensor([0., 2., 4.])
    """
    shape = _shape(shape)
    factors = tuple(factor) if isinstance(factor, Sequence) else (factor,) * len(shape)
    if len(factors) != len(shape) or not all(map(_is_count, factors)):
        raise ValueError(
            f"factor = {factor}: a whole number of at least 1 is needed for each axis of {shape}"
        )
    at = (..., *(slice(None, None, f) for f in factors))
    kept = tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))

    def adjoint(y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[: y.ndim - len(shape)], *shape)
        x[at] = y
        return x

    return LinearOperator(lambda x: x[at], adjoint, shape, kept)


def blur(
    kernel: Float[Tensor, "..."],
    shape: Sequence[int],
    *,
    boundary: Literal["circular", "padded"] = "circular",
) -> LinearOperator:
    """Convolution with `kernel`, centred on entry size // 2 of each axis, by FFT.

    y[i] = sum_j kernel[j] x[i - j + size // 2], where x is periodic ("circular") or zero outside
    ("padded", computed on a grid large enough that nothing wraps around). The size stays.

    Args:
        kernel: as many axes as `shape`; its dtype and device are those of the operator.
        shape: trailing shape of the signals: (n,), (h, w), ...
        boundary: "circular", whose gram is one product with |FFT(kernel)|^2, or "padded".

    Raises:
        ValueError: a kernel with NaN, with other axes, or larger than the signal; unknown boundary.

    Reference: P. C. Hansen, J. G. Nagy, D. P. O'Leary, Deblurring Images, SIAM, 2006, chapter 4.

    >>> blur(torch.tensor([0.5, 0.5, 0.0]), (4,))(torch.tensor([1.0, 0.0, 0.0, 3.0]))
    tensor([0.5000, 0.0000, 1.5000, 2.0000])
    """
    shape = _shape(shape)
    _check_values(kernel, "kernel")
    if boundary not in ("circular", "padded"):
        raise ValueError(f"unknown boundary {boundary!r}: allowed are circular, padded")
    sizes = tuple(kernel.shape)
    if len(sizes) != len(shape):
        raise ValueError(f"kernel of shape {sizes} has not as many axes as signals {shape}")
    if 0 in sizes or any(k > n for k, n in zip(sizes, shape, strict=True)):
        raise ValueError(f"kernel of shape {sizes}: at least 1, at most {shape} is allowed")

    dims = tuple(range(-len(shape), 0))
    grid = shape
    if boundary == "padded":  # what leaves on either side must land on zeros
        needed = (n + k // 2 for n, k in zip(shape, sizes, strict=True))
        grid = tuple(8 * next_fast_len(-(-m // 8), real=True) for m in needed)  # 8: a SIMD register
    padded = kernel.new_zeros(grid)
    padded[tuple(slice(k) for k in sizes)] = kernel
    spectrum = torch.fft.rfftn(padded.roll([-(k // 2) for k in sizes], dims), dim=dims)
    inside = (..., *(slice(n) for n in shape))

    def filtered(multiplier: Tensor) -> Apply:
        def apply(x: Tensor) -> Tensor:
            if x.numel() == 0:  # an empty batch, of which FFTs know nothing
                return x
            product = torch.fft.rfftn(x, s=grid, dim=dims) * multiplier
            return torch.fft.irfftn(product, s=grid, dim=dims)[inside]

        return apply

    adjoint = spectrum.conj().resolve_conj()
    return LinearOperator(
        filtered(spectrum),
        filtered(adjoint),
        shape,
        shape,
        filtered(spectrum * adjoint) if boundary == "circular" else None,
        dtype=kernel.dtype,
        device=kernel.device,
    )


def wavelet_synthesis(
    shape: Sequence[int], *, wavelet: Wavelet, level: int, mode: Mode = "periodization"
) -> LinearOperator:
    """W^-1: from the vector of wavelet coefficients (coarsest first) to the signal or image.

    With mode "periodization" and an orthogonal wavelet W^-1 = W^T: the adjoint is then the
    wavelet transform and the gram the identity. For every other wavelet and mode the adjoint is
    the transpose of the synthesis, which is not the transform. The coefficients are ordered as by
    `wavelets.ravel_coeffs`; `.layout` is what `wavelets.unravel_coeffs` takes, and its first
    `math.prod(layout[0])` entries are the approximation.

    Args:
        shape: (n,) or (h, w).
        wavelet, level, mode: see `wavelets.wavedec2`.

    Raises:
        ValueError: unknown wavelet or mode, no level or one below 1, and, for periodization, a
            size that 2**level does not divide (the transform would not be a basis).

    >>> W = wavelet_synthesis((8, 8), wavelet="haar", level=2)
    >>> W.shape_in, W.layout, torch.allclose(W(W.adjoint(torch.ones(8, 8))), torch.ones(8, 8))
    ((64,), ((2, 2), (2, 2), (4, 4)), True)
    """
    shape = _shape(shape)
    if len(shape) > 2:
        raise ValueError(f"shape {shape}: (n,) or (h, w) is needed")
    _check_level(level)
    analysis, synthesis = (wavedec, waverec) if len(shape) == 1 else (wavedec2, waverec2)
    flat, layout = ravel_coeffs(analysis(torch.zeros(shape), wavelet, mode=mode, level=level))
    if mode == "periodization" and any(n % 2**level for n in shape):
        raise ValueError(
            f"shape {shape}: mode 'periodization' needs multiples of 2**level = {2**level}"
        )

    # The transpose of a synthesis is the analysis with the same filters reversed; a synthesis
    # cuts borders off, so that its transpose fills them with zeros, whatever the mode.
    bank = filter_bank(wavelet)
    mirror = (f.flip(0).tolist() for f in (bank.rec_lo, bank.rec_hi, bank.dec_lo, bank.dec_hi))
    transposed = pywt.Wavelet("transposed", list(mirror))
    edge = mode if mode == "periodization" else "zero"

    def forward(a: Tensor) -> Tensor:
        return synthesis(unravel_coeffs(a, layout), wavelet, mode=mode, shape=shape)

    def adjoint(x: Tensor) -> Tensor:
        return ravel_coeffs(analysis(x, transposed, mode=edge, level=level))[0]

    inverse = mode == "periodization" and _orthogonal(bank)
    return LinearOperator(
        forward, adjoint, tuple(flat.shape), shape, _same if inverse else None, layout=layout
    )


class Norm(NamedTuple):
    """||A||: the estimate, the products with A^T A, the estimate after each, certified or not."""

    value: float
    steps: int
    history: Float[Tensor, " steps"]
    converged: bool


class NotConvergedWarning(UserWarning):
    """An iteration reached `max_steps` before its tolerance."""


FAILURE = 1e-3  # probability, over the random start, that a converged norm misses its tolerance


def operator_norm(
    A: LinearOperator, *, rtol: float = 1e-2, max_steps: int = 1000, seed: int = 0
) -> Norm:
    """||A|| = max ||A x|| / ||x||, by power iteration that forgets nothing.

    The power iteration multiplies a random v by A^T A again and again; the Rayleigh quotient of
    the last product underestimates ||A||^2, nobody can tell by how much, and a step 1/||A||^2 made
    from it is too long. Here the quotient is maximised over the span of *all* products, at the
    same price (Lanczos): never less, and certified, for after k products the estimate s obeys

        (1 - rtol) ||A|| <= s <= ||A||   but for 1.648 sqrt(n) exp(-sqrt(e) (2k - 1)) of all starts,

    e = 1 - (1 - rtol)^2, whatever the spectrum. k is the smallest with which that is one start in
    a thousand (at most n, which is exact). A small residual would certify nothing: a
    vector that is nearly orthogonal to the first singular vector can have one.

    Args:
        A: any operator; n is the number of entries of its input.
        rtol: relative tolerance, between 0 and 1.
        max_steps: at most this many products.
        seed: of the random start, the same on all devices.

    Returns:
        `Norm`: value, steps, history (never decreasing), converged (the bound above holds).

    Raises:
        ValueError: rtol outside (0, 1), max_steps below 1, an operator that returns NaN.

    Reference: J. Kuczynski, H. Wozniakowski, Estimating the largest eigenvalue by the power and
    Lanczos algorithms with a random start, SIAM J. Matrix Anal. Appl., 1992, theorem 4.2.

    >>> round(operator_norm(matrix(torch.diag(torch.tensor([3.0, 1.0, 2.0])))).value, 4)
    3.0
    """
    return _norm(A, A.dtype or torch.get_default_dtype(), A.device, rtol, max_steps, seed)


def _norm(
    A: LinearOperator,
    dtype: torch.dtype,
    device: torch.device | None,
    rtol: float,
    max_steps: int = 1000,
    seed: int = 0,
) -> Norm:
    if not 0 < rtol < 1:
        raise ValueError(f"rtol = {rtol}: a number between 0 and 1 is needed")
    if max_steps < 1:
        raise ValueError(f"max_steps = {max_steps}: at least 1 is needed")
    n = math.prod(A.shape_in)
    rate = math.sqrt(rtol * (2 - rtol))
    needed = min(n, math.ceil((math.log(1.648 * math.sqrt(n) / FAILURE) / rate + 1) / 2))

    v = torch.randn(A.shape_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    v = (v / torch.linalg.vector_norm(v)).to(device, dtype)
    old, beta, exact = torch.zeros_like(v), 0.0, False
    diagonal: list[float] = []
    beside: list[float] = []
    history: list[float] = []
    with torch.no_grad():
        while len(history) < min(needed, max_steps) and not exact:
            w = A.gram(v) - beta * old
            alpha = float((w * v).sum())
            if not math.isfinite(alpha):
                raise ValueError(f"A^T A of a random vector is not finite: <v, A^T A v> = {alpha}")
            diagonal.append(alpha)
            k = len(diagonal) - 1
            top = eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(k, k))[0]
            history.append(math.sqrt(max(top, 0.0)))
            w = w - alpha * v
            beta = float(torch.linalg.vector_norm(w))
            exact = bool(beta <= 4 * torch.finfo(dtype).eps * abs(top))  # the span is invariant
            beside.append(beta)
            old, v = v, w / (beta or 1.0)

    converged = exact or len(history) >= needed
    if not converged:
        warnings.warn(
            f"operator_norm: {needed} steps are needed for rtol = {rtol}, max_steps = {max_steps}",
            NotConvergedWarning,
            stacklevel=3,
        )
    estimates = torch.tensor(history, dtype=torch.float64)
    return Norm(history[-1], len(history), estimates, converged)


def _checked(
    apply: Apply,
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> Apply:
    """`apply`, refusing what it was not made for."""

    def checked(x: Tensor) -> Tensor:
        if x.shape[-len(shape) :] != shape:
            raise ValueError(f"{name} takes (*batch, *{shape}), got shape {tuple(x.shape)}")
        if not x.is_floating_point() or (dtype is not None and x.dtype != dtype):
            raise ValueError(f"{name} takes {dtype or 'floating point'}, got dtype {x.dtype}")
        if device is not None and x.device != device:
            raise ValueError(f"{name} takes tensors on {device}, got one on {x.device}")
        return apply(x)

    return checked


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) < 1 or min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)}: at least one axis, and none empty, is needed")
    return tuple(shape)


def _same(x: Tensor) -> Tensor:
    return x


def _orthogonal(bank: FilterBank) -> bool:
    """Whether the low-pass is orthonormal to its even shifts, and the analysis its mirror image."""
    h = bank.rec_lo
    shifts = torch.stack([(h[2 * k :] * h[: h.numel() - 2 * k]).sum() for k in range(len(h) // 2)])
    shifts[0] -= 1
    same = torch.cat([bank.dec_lo - h.flip(0), bank.dec_hi - bank.rec_hi.flip(0)])
    return float(torch.cat([shifts, same]).abs().max()) < 1e-9
