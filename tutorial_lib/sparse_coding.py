"""Sparse codes of many signals in one dictionary: orthogonal matching pursuit and the lasso.

A signal y (n samples) is written as D gamma with few atoms, the columns of D (n, atoms). Signals
and codes lie along the last axis: Y of shape (*batch, n) is near codes @ D.mT. scikit-learn's
`orthogonal_mp` takes D in the same shape, its `sparse_encode` the transpose.
"""

import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .operators import NotConvergedWarning, matrix
from .prox import _check_values
from .solvers import lasso_gap

BLOCK = 2**20  # correlations held at a time, signals x atoms: 4 MB of float32
CHECK = 10  # steps of the lasso from one certificate to the next


class Coding(NamedTuple):
    """Codes with their certificate.

    Args:
        codes: (*batch, atoms).
        steps: steps taken, those of the slowest signal.
        gap: (*batch), a bound of how far F is above its minimum.
        converged: (*batch), whether the gap met `rtol`.
    """

    codes: Float[Tensor, "*batch k"]
    steps: int
    gap: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]


# Greedy ------------------------------------------------------------------------------------------


def omp(
    signals: Float[Tensor, "*batch n"],
    dictionary: Float[Tensor, "n k"],
    *,
    n_nonzero_coefs: int | None = None,
    tol: float | None = None,
    gram: Float[Tensor, "k k"] | None = None,
) -> Float[Tensor, "*batch k"]:
    """Orthogonal matching pursuit, a greedy search for min ||gamma||_0 with D gamma near y.

    Again and again the atom of largest |<d_i, r>|, r = y - D gamma, joins the support, and gamma
    becomes the least-squares code on the support. The Cholesky factor of D_S^T D_S grows by one
    row with each atom, for all signals at once.

    Args:
        signals: (*batch, n).
        dictionary: D, unit atoms as columns, (n, k).
        n_nonzero_coefs: a signal stops at so many atoms, 1 to min(n, k); that limit if None.
        tol: a signal stops when ||r||^2 <= tol, at once if its own ||y||^2 is. One of the two must
            be given.
        gram: D^T D, if it is at hand.

    Returns:
        Codes (*batch, k), exactly zero off the support. A signal also stops, with fewer atoms,
        where its residual is zero to rounding or the next atom depends on those chosen.

    Raises:
        ValueError: NaN, integers, shapes, dtypes or devices that do not fit, atoms that are not of
            length one, n_nonzero_coefs out of range, negative tol, neither of the two.

    Reference: R. Rubinstein, M. Zibulevsky, M. Elad, Efficient implementation of the K-SVD
    algorithm using batch orthogonal matching pursuit, Technion CS-2008-08, 2008.

    >>> D = torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])
    >>> omp(torch.tensor([1.2, 1.6]), D, n_nonzero_coefs=1)
    tensor([0., 0., 2.])
    """
    _check_dictionary(signals, dictionary)
    n, k = dictionary.shape
    lengths = torch.linalg.vector_norm(dictionary, dim=0)
    if k and (lengths - 1).abs().max() > 1e-3:
        worst = int((lengths - 1).abs().argmax())
        raise ValueError(
            f"atom {worst} of the dictionary has length {float(lengths[worst]):.4g}: "
            "atoms of length 1 are needed (dictionary / dictionary.norm(dim=0))"
        )
    if n_nonzero_coefs is None and tol is None:
        raise ValueError("one of n_nonzero_coefs and tol is needed")
    most = min(n, k) if n_nonzero_coefs is None else n_nonzero_coefs
    if not 1 <= most <= min(n, k):
        raise ValueError(f"n_nonzero_coefs = {n_nonzero_coefs}: 1 to {min(n, k)} are allowed")
    if tol is not None and not tol >= 0:
        raise ValueError(f"tol = {tol}: it must be nonnegative")
    if gram is None:
        gram = dictionary.mT @ dictionary
    elif gram.shape != (k, k) or gram.dtype != dictionary.dtype:
        raise ValueError(
            f"gram of shape {tuple(gram.shape)} and {gram.dtype}: ({k}, {k}) and "
            f"{dictionary.dtype} are needed"
        )
    rows = signals.reshape(-1, n)
    codes = rows.new_zeros(len(rows), k)
    size = max(1, BLOCK // k)
    for i in range(0, len(rows), size):
        _omp(rows[i : i + size], dictionary, gram, most, tol, codes[i : i + size])
    return codes.reshape(*signals.shape[:-1], k)


def _omp(y: Tensor, D: Tensor, gram: Tensor, most: int, tol: float | None, codes: Tensor) -> None:
    """Write the codes of y (b, n) into `codes` (b, k)."""
    eps = torch.finfo(y.dtype).eps
    energy = y.square().sum(1)
    enough = torch.maximum(torch.as_tensor(tol or 0.0).to(energy), (10 * eps) ** 2 * energy)
    rows = (energy > enough).nonzero()[:, 0]  # who is still searching
    y, enough = y[rows], enough[rows]
    r, wide = y, min(most, 8)
    support = rows.new_zeros(len(rows), wide)
    L = y.new_zeros(len(rows), wide, wide)
    z = y.new_zeros(len(rows), wide)  # L z = D_S^T y
    for s in range(most):
        if len(rows) == 0:
            return
        if s == wide:
            wide = min(most, 2 * s)
            grow = (0, wide - s)
            support, z = (torch.nn.functional.pad(u, grow) for u in (support, z))
            L = torch.nn.functional.pad(L, (*grow, *grow))
        best = (r @ D).abs_().argmax(1)
        w = _forward(L[:, :s, :s], gram[support[:, :s], best[:, None]])
        pivot = 1 - w.square().sum(1)
        new = pivot > 10 * eps  # else the atom depends on those chosen
        root = pivot.clamp(min=eps).sqrt()
        own = torch.einsum("bn,bn->b", y, D.mT[best])
        z[:, s] = torch.where(new, (own - (w * z[:, :s]).sum(1)) / root, 0)
        support[:, s], L[:, s, :s], L[:, s, s] = best, w, root
        chosen = support[:, : s + 1]
        gamma = _backward(L[:, : s + 1, : s + 1], z[:, : s + 1])
        r = y - torch.einsum("bs,bsn->bn", gamma, D.mT[chosen])
        done = ~new | (r.square().sum(1) <= enough) | (s + 1 == most)
        if done.any():  # z = 0 keeps an atom that depends on others out of the code
            leaving = rows[done]
            codes[leaving] = codes[leaving].scatter_add(1, chosen[done], gamma[done])
            y, r, rows, support, L, z, enough = (
                u[~done] for u in (y, r, rows, support, L, z, enough)
            )


def _forward(L: Tensor, b: Tensor) -> Tensor:
    """Solve L x = b, (b, s, s) and (b, s)."""
    return torch.linalg.solve_triangular(L, b[..., None], upper=False)[..., 0]


def _backward(L: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(L.mT, b[..., None], upper=True)[..., 0]


# Convex ------------------------------------------------------------------------------------------


def lasso(
    signals: Float[Tensor, "*batch n"],
    dictionary: Float[Tensor, "n k"],
    lam: float,
    *,
    rtol: float = 1e-5,
    max_steps: int = 5000,
) -> Coding:
    """argmin_gamma F(gamma) = 1/2 ||y - D gamma||^2 + lam ||gamma||_1, for each signal.

    FISTA with a restart for each signal. Every ten steps the duality gap of each signal is
    computed, and those below rtol * 1/2 ||y||^2 leave.

    Args:
        signals: (*batch, n).
        dictionary: D (n, k); its atoms may have any length.
        lam: nonnegative; the code is zero from max |D^T y| on.
        rtol: positive.
        max_steps: at least 1.

    Returns:
        `Coding`; its gap is that of the codes returned.

    Raises:
        ValueError: NaN, integers, shapes, dtypes or devices that do not fit, negative lam, rtol
            that is not positive, max_steps < 1.

    Warns:
        NotConvergedWarning: once, if a signal did not meet rtol.

    Reference: A. Beck, M. Teboulle, SIAM J. Imaging Sci., 2009; B. O'Donoghue, E. Candes, Found.
    Comput. Math., 2015; for the gap `solvers.lasso_gap`.

    >>> lasso(torch.tensor([3.0, -0.5]), torch.eye(2), 1.0).codes
    tensor([2., 0.])
    """
    _check_dictionary(signals, dictionary)
    if not 0 <= lam < math.inf:
        raise ValueError(f"lam = {lam}: it must be nonnegative and finite")
    if not rtol > 0:
        raise ValueError(f"rtol = {rtol}: a positive number is needed")
    if max_steps < 1:
        raise ValueError(f"max_steps = {max_steps}: at least 1 is needed")
    y = signals.reshape(-1, signals.shape[-1])
    A = matrix(dictionary)
    norm = float(torch.linalg.matrix_norm(dictionary, 2))
    step = 1 / norm**2 if norm > 0 else 1.0
    enough = rtol * y.square().sum(1) / 2
    b = A.adjoint(y)
    x = z = torch.zeros_like(b)
    codes, gap, rows = x, enough.new_zeros(len(y)), torch.arange(len(y), device=y.device)
    t = y.new_ones(len(y), 1)
    k = 0
    for k in range(1, max_steps + 1):
        old, v = x, z - step * (A.gram(z) - b)
        x = v - v.clamp(-step * lam, step * lam)
        moved = x - old
        turned = ((z - x) * moved).sum(1, keepdim=True) > 0
        t = torch.where(turned, 1, t)
        following = (1 + (1 + 4 * t * t).sqrt()) / 2
        z, t = x + (t - 1) / following * moved, following
        if k % CHECK and k < max_steps:
            continue
        bound = lasso_gap(A, y, x, lam)
        done = (bound <= enough) | (k == max_steps)
        if done.any():
            codes = codes.index_copy(0, rows[done], x[done])
            gap = gap.index_copy(0, rows[done], bound[done])
            rows, y, b, x, z, t, enough = (u[~done] for u in (rows, y, b, x, z, t, enough))
            if len(rows) == 0:
                break
    batch = signals.shape[:-1]
    converged = gap <= rtol * signals.reshape(len(gap), -1).square().sum(1) / 2
    if not converged.all():
        warnings.warn(
            f"{int((~converged).sum())} of {len(gap)} signals did not reach rtol = {rtol} in "
            f"{max_steps} steps: the largest gap is {float(gap.max()):.1e}",
            NotConvergedWarning,
            stacklevel=2,
        )
    return Coding(codes.reshape(*batch, -1), k, gap.reshape(batch), converged.reshape(batch))


def lasso_kkt(
    signals: Float[Tensor, "*batch n"],
    dictionary: Float[Tensor, "n k"],
    codes: Float[Tensor, "*batch k"],
    lam: float,
) -> Float[Tensor, "*batch"]:
    """By how much codes miss the conditions of a minimiser of the `lasso`, 0 where they meet them.

    With c = D^T (y - D gamma): c_i = lam sign(gamma_i) where gamma_i != 0, |c_i| <= lam elsewhere.

    Returns:
        (*batch), the largest violation among the atoms.

    Raises:
        ValueError: as `lasso`, and codes that do not fit.

    >>> D, y = torch.eye(2), torch.tensor([3.0, -0.5])
    >>> lasso_kkt(y, D, torch.tensor([2.0, 0.0]), 1.0)
    tensor(0.)
    """
    _check_dictionary(signals, dictionary)
    _check_codes(codes, signals, dictionary)
    if not lam >= 0:
        raise ValueError(f"lam = {lam}: it must be nonnegative")
    c = (signals - codes @ dictionary.mT) @ dictionary
    outside = (c.abs() - lam).clamp(min=0)
    return torch.where(codes != 0, (c - lam * codes.sign()).abs(), outside).amax(-1)


# Guarantees --------------------------------------------------------------------------------------


def coherence(dictionary: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """mu(D) = max_{i != j} |<d_i, d_j>| / (||d_i|| ||d_j||), the largest cosine between two atoms.

    A signal with a code of fewer than (1 + 1/mu)/2 atoms has no other code that sparse, and both
    `omp` and the lasso as lam -> 0 find it.

    Raises:
        ValueError: not a matrix, fewer than two atoms, NaN, integers, an atom that is zero.

    Reference: J. A. Tropp, Greed is good: algorithmic results for sparse approximation, IEEE
    Trans. Inf. Theory, 2004.

    >>> coherence(torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]]))
    tensor(0.8000)
    """
    _check_values(dictionary, "dictionary")
    if dictionary.ndim != 2 or dictionary.shape[1] < 2:
        raise ValueError(f"dictionary of shape {tuple(dictionary.shape)}: (n, k), k >= 2 is needed")
    lengths = torch.linalg.vector_norm(dictionary, dim=0)
    if not (lengths > 0).all():
        raise ValueError(f"atom {int(lengths.argmin())} of the dictionary is zero")
    unit = dictionary / lengths
    return (unit.mT @ unit).abs().fill_diagonal_(0).max()


def _check_dictionary(signals: Tensor, dictionary: Tensor) -> None:
    _check_values(signals, "signals")
    _check_values(dictionary, "dictionary")
    if dictionary.ndim != 2 or signals.ndim < 1 or signals.shape[-1] != dictionary.shape[0]:
        raise ValueError(
            f"signals {tuple(signals.shape)} and dictionary {tuple(dictionary.shape)} do not fit: "
            "(*batch, n) and (n, k) are needed"
        )
    if (signals.dtype, signals.device) != (dictionary.dtype, dictionary.device):
        raise ValueError(
            f"signals have {signals.dtype} on {signals.device}, the dictionary "
            f"{dictionary.dtype} on {dictionary.device}"
        )


def _check_codes(codes: Tensor, signals: Tensor, dictionary: Tensor) -> None:
    _check_values(codes, "codes")
    wanted = (*signals.shape[:-1], dictionary.shape[1])
    if codes.shape != wanted or codes.dtype != signals.dtype:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} and {codes.dtype}: {tuple(wanted)} and "
            f"{signals.dtype} are needed"
        )
