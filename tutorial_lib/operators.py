"""Linear operators: a forward map, its exact adjoint, and the fused A^T A that solvers iterate.

An operator acts on the trailing axes; leading axes are batch axes everywhere.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.fft import next_fast_len
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor
from torch.nn.functional import pad

from .prox import _check_values
from .wavelets import (
    FilterBank,
    Mode,
    Wavelet,
    _bank,
    _bank_adjoint,
    _decimated,
    _Linear,
    filter_bank,
    ravel_coeffs,
    wavedec,
    wavedec2,
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
    """The identity on tensors of trailing shape `shape`."""
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

    >>> subsample((5,), factor=2)(torch.arange(5.0))
    tensor([0., 2., 4.])
    """
    shape = _shape(shape)
    factors = (factor,) * len(shape) if isinstance(factor, int) else tuple(factor)
    if len(factors) != len(shape) or min(factors) < 1:
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
        grid = tuple(
            next_fast_len(n + k // 2, real=True) for n, k in zip(shape, sizes, strict=True)
        )
    padded = kernel.new_zeros(grid)
    padded[tuple(slice(k) for k in sizes)] = kernel
    spectrum = torch.fft.rfftn(padded.roll([-(k // 2) for k in sizes], dims), dim=dims)
    inside = (..., *(slice(n) for n in shape))

    def filtered(multiplier: Tensor) -> Apply:
        def apply(x: Tensor) -> Tensor:
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
        ValueError: unknown wavelet or mode, a level below one, and, for periodization, a size
            that 2**level does not divide (the transform would not be a basis).

    >>> W = wavelet_synthesis((8, 8), wavelet="haar", level=2)
    >>> W.shape_in, W.layout, torch.allclose(W(W.adjoint(torch.ones(8, 8))), torch.ones(8, 8))
    ((64,), ((2, 2), (2, 2), (4, 4)), True)
    """
    shape = _shape(shape)
    if len(shape) > 2:
        raise ValueError(f"shape {shape}: (n,) or (h, w) is needed")
    analysis = wavedec if len(shape) == 1 else wavedec2
    _, layout = ravel_coeffs(analysis(torch.zeros(shape), wavelet, mode=mode, level=level))
    if mode == "periodization" and any(n % 2**level for n in shape):
        raise ValueError(
            f"shape {shape}: mode 'periodization' needs multiples of 2**level = {2**level}"
        )

    bank, d = filter_bank(wavelet), len(shape)
    taps = tuple(zip(bank.rec_lo.tolist(), bank.rec_hi.tolist(), strict=True))
    border = mode if mode == "periodization" else "zero"  # the synthesis knows no other
    make = _haar_level if len(taps) == 2 else _level
    sizes = [*layout[2:], shape]  # of what each level, the coarsest first, puts together
    levels = [make(m, size, taps, border) for m, size in zip(layout[1:], sizes, strict=True)]
    lengths = [math.prod(layout[0]), *((2**d - 1) * math.prod(m) for m in layout[1:])]

    def synthesis(flat: Tensor) -> Tensor:
        x, *details = flat.split(lengths, dim=-1)
        x = x.unflatten(-1, layout[0])
        for (_, synthesise), bands in zip(levels, details, strict=True):
            x = synthesise(x, bands)
        return x

    def transpose(x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for analyse, _ in reversed(levels):
            x, bands = analyse(x)
            parts = [bands, *parts]
        return torch.cat([x.flatten(-d), *parts], dim=-1)

    return LinearOperator(
        lambda a: _Linear.apply(a, synthesis, transpose),
        lambda x: _Linear.apply(x, transpose, synthesis),
        (sum(lengths),),
        shape,
        _same if mode == "periodization" and _orthogonal(bank) else None,
        layout=layout,
    )


Level = tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Callable[[Tensor, Tensor], Tensor]]


def _level(m: tuple[int, ...], size: tuple[int, ...], taps: tuple, border: str) -> Level:
    """x of shape `size` -> its approximation of shape m and its details, flat; the transpose."""
    d = len(size)
    extra = 0 if border == "periodization" else 2 - len(taps)
    whole = [2 * n + extra for n in m]  # what comes back, cut to `size`
    axes = tuple(_decimated(n, len(taps), border) for n in whole)
    cut = [p for n, k in zip(reversed(size), reversed(whole), strict=True) for p in (0, k - n)]
    order = [0] if d == 1 else [1, 0, 2]  # the bank's bands v, h, d against PyWavelets' h, v, d

    def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
        x, *bands = _bank(axes, taps, pad(x, cut) if any(cut) else x).unbind(-d - 1)
        return x, torch.cat([bands[i].flatten(-d) for i in order], -1)

    def synthesise(x: Tensor, details: Tensor) -> Tensor:
        bands = details.unflatten(-1, (-1, *m)).unbind(-d - 1)
        x = _bank_adjoint(axes, taps, torch.stack([x, *(bands[i] for i in order)], -d - 1))
        return x[(..., *(slice(n) for n in size))]

    return analyse, synthesise


def _haar_level(m: tuple[int, ...], size: tuple[int, ...], taps: tuple, border: str) -> Level:
    """`_level` for two taps: blocks of two samples an axis do not meet, so a small matrix does."""
    d = len(size)
    cut = [p for n, k in zip(reversed(size), reversed(m), strict=True) for p in (0, 2 * k - n)]
    rows = torch.tensor(taps, dtype=torch.float64).mT  # (band, phase)
    if d == 2:
        rows = torch.kron(rows, rows)[[0, 2, 1, 3]]  # PyWavelets' order of bands

    @lru_cache(maxsize=8)
    def block(dtype: torch.dtype, device: torch.device) -> Tensor:
        return rows.to(device, dtype)

    def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
        x = pad(x, cut) if any(cut) else x
        for dim in (-1, -3)[:d]:
            x = x.unflatten(dim, (-1, 2))
        x = x.movedim(-1, -2) if d == 1 else x.movedim((-3, -1), (-4, -3))
        x = block(x.dtype, x.device) @ x.reshape(*x.shape[: -2 * d], 2**d, -1)
        return x[..., 0, :].unflatten(-1, m), x[..., 1:, :].flatten(-2)

    def synthesise(x: Tensor, details: Tensor) -> Tensor:
        bands = torch.cat([x.flatten(-d), details], -1).unflatten(-1, (2**d, -1))
        x = block(x.dtype, x.device).mT @ bands
        even, odd = x.unflatten(-1, m).unflatten(-d - 1, (2,) * d).unbind(-d - 1)
        x = torch.view_as_real(torch.complex(even, odd)).flatten(-2)  # a quick interleave
        x = x if d == 1 else x.movedim(-3, -2).flatten(-3, -2)
        return x[(..., *(slice(n) for n in size))] if any(cut) else x

    return analyse, synthesise


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
    the last product is a lower bound of ||A||^2. Here it is maximised over the span of *all*
    products, at the same price (Lanczos): never less, and after k products the estimate s obeys

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
            exact = beta <= 4 * torch.finfo(dtype).eps * abs(top)  # the span is invariant
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
