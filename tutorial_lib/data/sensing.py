"""The standard experiment of learned sparse coding: few entries of a code, seen through a matrix.

Every draw depends on a seed and on the number of the sample alone.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def gaussian_matrix(m: int = 250, n: int = 500, *, seed: int = 0) -> Float[Tensor, "m n"]:
    """A matrix with independent normal entries, its columns scaled to length 1.

    >>> gaussian_matrix(3, 5).norm(dim=0)
    tensor([1., 1., 1., 1., 1.])
    """
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(m, n, generator=g, dtype=torch.float64)
    return (A / A.norm(dim=0)).float()


def sparse_codes(
    index: Int[Tensor, " b"], n: int = 500, *, density: float = 0.1, seed: int = 0
) -> Float[Tensor, "b n"]:
    """Codes whose entries are standard normal with probability `density`, and zero otherwise.

    Args:
        index: sample numbers, 0 to 2**32 - 1.
        n: entries of a code.
        density: expected share of entries that are not zero, 0 to 1.
        seed: of the whole set.

    Raises:
        ValueError: a density outside 0 to 1, a number outside its range.

    >>> x = sparse_codes(torch.arange(100))
    >>> round((x != 0).float().mean().item(), 2)
    0.1
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density = {density}: expected 0 to 1")
    rows = [_generator(int(i), seed, 0) for i in index]
    drawn = [(torch.randn(n, generator=g), torch.rand(n, generator=g)) for g in rows]
    return torch.stack([x * (u < density) for x, u in drawn])


def observe(
    A: Float[Tensor, "m n"],
    x: Float[Tensor, "b n"],
    index: Int[Tensor, " b"],
    *,
    snr: float | None = None,
    seed: int = 0,
) -> Float[Tensor, "b m"]:
    """y = A x with white Gaussian noise, its strength set for each sample by `snr`.

    Args:
        A: the matrix.
        x: codes, one a row.
        index: their sample numbers.
        snr: 20 log10 of std(A x) / std(noise), in dB; None: no noise.
        seed: of the whole set.

    Raises:
        ValueError: a ratio that is not finite.

    >>> A, i = gaussian_matrix(), torch.arange(4)
    >>> x = sparse_codes(i)
    >>> noise = observe(A, x, i, snr=20.0) - observe(A, x, i)
    >>> [round(r.item(), 1) for r in noise.std(1) / (x @ A.mT).std(1)]
    [0.1, 0.1, 0.1, 0.1]
    """
    if snr is not None and not math.isfinite(snr):
        raise ValueError(f"snr = {snr}: expected a number of dB, or None")
    y = x @ A.mT
    if snr is None:
        return y
    rows = [_generator(int(i), seed, 1) for i in index]
    noise = torch.stack([torch.randn(len(A), generator=g) for g in rows]).to(y)
    return y + 10 ** (-snr / 20) * y.std(1, keepdim=True) * noise


def _generator(index: int, seed: int, stream: int) -> torch.Generator:
    """The random numbers of one sample: stream 0 its code, 1 its noise."""
    if not 0 <= index < 2**32:  # all that the generator takes of a seed
        raise ValueError(f"sample number {index}: expected 0 to 2**32 - 1")
    return torch.Generator().manual_seed((seed * 7 + stream) * 1_000_003**2 + index)
