"""Learned dictionaries: MOD and K-SVD, the cosine dictionary, patches, denoising with a dictionary.

Signals Y (signals, n), codes (signals, atoms) and a dictionary D (n, atoms) whose columns are unit
atoms: Y is near codes @ D.mT. All updates lower the same E = ||Y - codes D^T||_F^2.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .prox import _check_values
from .sparse_coding import _check_codes, _check_dictionary, omp

Method = Literal["mod", "ksvd", "ksvd-approximate"]
METHODS: tuple[str, ...] = ("mod", "ksvd", "ksvd-approximate")


class Learned(NamedTuple):
    """What an update or a whole learning returns.

    Args:
        dictionary: (n, k), unit atoms as columns.
        codes: (signals, k).
        history: (steps), the mean of (y - D gamma)^2 over all samples after each step.
    """

    dictionary: Float[Tensor, "n k"]
    codes: Float[Tensor, "signals k"]
    history: Float[Tensor, " steps"]


# Dictionaries ------------------------------------------------------------------------------------


def dct_dictionary(size: int, atoms: int) -> Float[Tensor, "size_squared atoms_squared"]:
    """Overcomplete cosine dictionary of square patches: products of `atoms` cosines an axis.

    Cosine j of an axis is cos(pi j (2 i + 1) / (2 atoms)), i < size, less its mean for j > 0. With
    atoms = size the dictionary is the orthonormal DCT-II.

    Args:
        size: pixels a side of the patch.
        atoms: at least `size`; the dictionary has atoms^2 columns, the constant one first.

    Returns:
        (size^2, atoms^2), float32, unit columns.

    Raises:
        ValueError: size < 1, atoms < size.

    Reference: M. Elad, M. Aharon, Image denoising via sparse and redundant representations over
    learned dictionaries, IEEE Trans. Image Processing, 2006.

    >>> D = dct_dictionary(8, 8)
    >>> torch.allclose(D @ D.mT, torch.eye(64), atol=1e-6)
    True
    """
    if size < 1 or atoms < size:
        raise ValueError(f"size = {size}, atoms = {atoms}: 1 <= size <= atoms is needed")
    i, j = torch.arange(size, dtype=torch.float64), torch.arange(atoms, dtype=torch.float64)
    one = torch.cos(math.pi * (i[:, None] + 0.5) * j / atoms)
    one[:, 1:] -= one[:, 1:].mean(0)
    one = one / one.norm(dim=0)
    return torch.kron(one, one).float()


# Updates: the codes' supports are fixed ----------------------------------------------------------


def mod_update(
    signals: Float[Tensor, "signals n"],
    dictionary: Float[Tensor, "n k"],
    codes: Float[Tensor, "signals k"],
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "signals k"]]:
    """Method of optimal directions: argmin_D ||Y - codes D^T||_F^2, all atoms at once.

    D^T is the least-squares solution (codes^T codes)^+ codes^T Y. Its columns are then scaled to
    length one and the codes inversely, which leaves the product, and so E, as it is. An atom that
    no code uses is kept.

    Returns:
        The new dictionary and codes. E has not risen.

    Raises:
        ValueError: NaN, integers, shapes or dtypes that do not fit.

    Reference: K. Engan, S. O. Aase, J. H. Husoy, Method of optimal directions for frame design,
    ICASSP 1999.

    >>> D, codes = mod_update(torch.tensor([[3.0, 4.0]]), torch.eye(2), torch.tensor([[1.0, 0.0]]))
    >>> D[:, 0], codes[0]
    (tensor([0.6000, 0.8000]), tensor([5., 0.]))
    """
    _check(signals, dictionary, codes)
    c, y = codes.double(), signals.double()
    best = (torch.linalg.pinv(c.mT @ c, hermitian=True) @ (c.mT @ y)).mT.to(dictionary)
    length = torch.linalg.vector_norm(best, dim=0)
    used = (codes != 0).any(0) & (length > 0)
    safe = torch.where(used, length, 1)
    return torch.where(used, best / safe, dictionary), codes * safe


def ksvd_update(
    signals: Float[Tensor, "signals n"],
    dictionary: Float[Tensor, "n k"],
    codes: Float[Tensor, "signals k"],
    *,
    exact: bool = True,
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "signals k"]]:
    """K-SVD: one atom after the other, each together with the codes that use it.

    For atom d with codes g on the signals that use it, and R what the other atoms leave of those,
    E is ||R - g d^T||_F^2 plus a constant: its minimiser over both is the leading singular pair.

    Args:
        signals, dictionary, codes: as in `mod_update`.
        exact: the singular pair; else one alternation d = R^T g / ||R^T g||, g = R d, which is
            a step of the power method towards it.

    Returns:
        The new dictionary and codes, with the supports of the old. E has not risen.

    Raises:
        ValueError: as `mod_update`.

    Reference: M. Aharon, M. Elad, A. Bruckstein, K-SVD, IEEE Trans. Signal Processing, 2006; for
    the approximation R. Rubinstein, M. Zibulevsky, M. Elad, Technion CS-2008-08, 2008.

    >>> Y = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
    >>> D, codes = ksvd_update(Y, torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> torch.allclose(codes @ D.mT, Y)
    True
    """
    _check(signals, dictionary, codes)
    D, by_atom = dictionary.mT.clone(), codes.mT.clone()  # rows are contiguous
    residual = signals - codes @ dictionary.mT
    for j in range(len(D)):
        rows = by_atom[j].nonzero()[:, 0]
        if len(rows) == 0:
            continue
        g, d = by_atom[j, rows], D[j]
        R = torch.addcmul(residual[rows], g[:, None], d)
        new = torch.linalg.eigh(R.mT @ R).eigenvectors[:, -1] if exact else g @ R
        length = torch.linalg.vector_norm(new)
        if not length > 0:  # R = 0 to rounding: nothing to turn towards
            continue
        d = new / length
        g = R @ d
        D[j], by_atom[j, rows] = d, g
        residual[rows] = torch.addcmul(R, g[:, None], d, value=-1)
    return D.mT.contiguous(), by_atom.mT.contiguous()


def replace_atoms(
    signals: Float[Tensor, "signals n"],
    dictionary: Float[Tensor, "n k"],
    codes: Float[Tensor, "signals k"],
    *,
    max_cosine: float = 0.99,
) -> Float[Tensor, "n k"]:
    """Put the signals of largest error in the place of atoms that are of no use.

    Those are the atoms that no code uses, and of two whose |cosine| exceeds `max_cosine` the one
    used less. The codes are then out of date: code again.

    Args:
        signals, dictionary, codes: as in `mod_update`.
        max_cosine: positive; 1 replaces unused atoms only, and then E, with the old codes, is what
            it was.

    Raises:
        ValueError: as `mod_update`; max_cosine that is not positive.

    Reference: M. Aharon, M. Elad, A. Bruckstein, K-SVD, IEEE Trans. Signal Processing, 2006,
    section IV.

    >>> D, codes = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> replace_atoms(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), D, codes)[:, 1]
    tensor([0.6000, 0.8000])
    """
    _check(signals, dictionary, codes)
    if not max_cosine > 0:
        raise ValueError(f"max_cosine = {max_cosine}: a positive number is needed")
    order = (codes != 0).sum(0).argsort(descending=True, stable=True)
    D = dictionary[:, order]
    twins = (D.mT @ D).abs().triu(1) > max_cosine  # the later of two is used less
    useless = order[twins.any(0) | (codes[:, order] == 0).all(0)]
    error = (signals - codes @ dictionary.mT).square().sum(1)
    worst = error.topk(min(len(useless), len(error))).indices
    worst = worst[error[worst] > torch.finfo(error.dtype).eps * signals[worst].square().sum(1)]
    atoms = signals[worst]
    D = dictionary.clone()
    D[:, useless[: len(worst)]] = (atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)).mT
    return D


def learn_dictionary(
    signals: Float[Tensor, "signals n"],
    dictionary: Float[Tensor, "n k"],
    *,
    n_nonzero_coefs: int | None = None,
    tol: float | None = None,
    method: Method = "ksvd",
    steps: int = 10,
) -> Learned:
    """min_{D, codes} ||Y - codes D^T||_F^2 with few atoms in each code, by alternation.

    A step codes all signals by `omp` and updates the dictionary; between two steps `replace_atoms`.

    Args:
        signals: Y (signals, n).
        dictionary: where to start, unit atoms (n, k): `dct_dictionary`, or k of the signals.
        n_nonzero_coefs, tol: of `omp`, one for all signals.
        method: "mod", "ksvd", or "ksvd-approximate".
        steps: at least 1.

    Returns:
        `Learned`, with the codes of the last update. Only the update is known not to raise the
        error: the greedy coding and the replacement can.

    Raises:
        ValueError: as `omp` and the updates; an unknown method, steps < 1.

    >>> Y = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> learned = learn_dictionary(Y, torch.eye(4), n_nonzero_coefs=2, steps=5)
    >>> bool(learned.history[-1] < learned.history[0])
    True
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: allowed are {', '.join(METHODS)}")
    if steps < 1:
        raise ValueError(f"steps = {steps}: at least 1 is needed")
    if signals.ndim != 2:
        raise ValueError(f"signals of shape {tuple(signals.shape)}: (signals, n) is needed")
    codes, history = None, []
    for _ in range(steps):
        if codes is not None:
            dictionary = replace_atoms(signals, dictionary, codes)
        codes = omp(signals, dictionary, n_nonzero_coefs=n_nonzero_coefs, tol=tol)
        if method == "mod":
            dictionary, codes = mod_update(signals, dictionary, codes)
        else:
            dictionary, codes = ksvd_update(signals, dictionary, codes, exact=method == "ksvd")
        history.append((signals - codes @ dictionary.mT).square().mean())
    return Learned(dictionary, codes, torch.stack(history))


# Patches -----------------------------------------------------------------------------------------


def extract_patches(
    images: Float[Tensor, "*batch h w"], *, size: int, stride: int = 1
) -> Float[Tensor, "*batch patches n"]:
    """All square patches at distance `stride`, row after row, each flattened to size^2 samples.

    Raises:
        ValueError: NaN, integers, fewer than two axes, size or stride out of range.

    >>> extract_patches(torch.rand(5, 6), size=2).shape
    torch.Size([20, 4])
    """
    _check_values(images, "images")
    _check_window(images.shape, size, stride)
    windows = images.unfold(-2, size, stride).unfold(-2, size, stride)
    return windows.flatten(-2).flatten(-3, -2)


def average_patches(
    patches: Float[Tensor, "*batch patches n"], shape: tuple[int, int], *, stride: int = 1
) -> Float[Tensor, "*batch h w"]:
    """The image in which each pixel is the mean of all patches that cover it.

    The least-squares image argmin_x sum_i ||R_i x - p_i||^2, R_i taking out patch i; pixels that no
    patch covers are 0. After `extract_patches` it gives the image back.

    Args:
        patches: (*batch, patches, size^2), in the order of `extract_patches`.
        shape: (h, w) of the image.
        stride: that of `extract_patches`.

    Raises:
        ValueError: NaN, integers, patches that are not square or not as many as fit.

    >>> x = torch.rand(5, 6)
    >>> torch.allclose(average_patches(extract_patches(x, size=2), (5, 6)), x)
    True
    """
    _check_values(patches, "patches")
    size = math.isqrt(patches.shape[-1])
    h, w = shape
    _check_window((h, w), size, stride)
    count = ((h - size) // stride + 1) * ((w - size) // stride + 1)
    if patches.ndim < 2 or patches.shape[-2:] != (count, size * size):
        raise ValueError(
            f"patches of shape {tuple(patches.shape)}: (*batch, {count}, size^2) are needed for an "
            f"image of {h} x {w} at stride {stride}"
        )
    flat = patches.reshape(-1, count, size * size).mT
    total = torch.nn.functional.fold(flat, (h, w), size, stride=stride)
    cover = torch.nn.functional.fold(torch.ones_like(flat[:1]), (h, w), size, stride=stride)
    return (total / cover.clamp(min=1)).reshape(*patches.shape[:-2], h, w)


def denoise_dictionary(
    y: Float[Tensor, "*batch h w"],
    dictionary: Float[Tensor, "n k"],
    *,
    sigma: float,
    gain: float = 1.15,
    stride: int = 1,
) -> Float[Tensor, "*batch h w"]:
    """Code each patch down to the level of the noise, and average the overlapping patches.

    Each patch, its mean taken off, gets the code of fewest atoms that `omp` finds with
    ||r||^2 <= n (gain sigma)^2.

    Args:
        y: noisy images (*batch, h, w).
        dictionary: (size^2, k), unit atoms.
        sigma: standard deviation of the noise, in the unit of y.
        gain: how much more than the noise a patch may miss; 1.15 is published.
        stride: 1 takes all patches.

    Returns:
        As y.

    Raises:
        ValueError: as `omp` and `extract_patches`; negative sigma or gain.

    Reference: M. Elad, M. Aharon, Image denoising via sparse and redundant representations over
    learned dictionaries, IEEE Trans. Image Processing, 2006.

    >>> y = torch.full((16, 16), 0.5)
    >>> torch.allclose(denoise_dictionary(y, dct_dictionary(8, 11), sigma=0.1), y)
    True
    """
    if not sigma >= 0 or not gain >= 0:
        raise ValueError(f"sigma = {sigma}, gain = {gain}: they must be nonnegative")
    n = dictionary.shape[0]
    if math.isqrt(n) ** 2 != n:
        raise ValueError(f"dictionary of shape {tuple(dictionary.shape)}: n must be a square")
    patches = extract_patches(y, size=math.isqrt(n), stride=stride)
    mean = patches.mean(-1, keepdim=True)
    codes = omp(patches - mean, dictionary, tol=n * (gain * sigma) ** 2)
    return average_patches(codes @ dictionary.mT + mean, y.shape[-2:], stride=stride)


def _check(signals: Tensor, dictionary: Tensor, codes: Tensor) -> None:
    if signals.ndim != 2:
        raise ValueError(f"signals of shape {tuple(signals.shape)}: (signals, n) is needed")
    _check_dictionary(signals, dictionary)
    _check_codes(codes, signals, dictionary)


def _check_window(shape: tuple[int, ...], size: int, stride: int) -> None:
    if len(shape) < 2 or not 1 <= size <= min(shape[-2:]) or stride < 1:
        raise ValueError(
            f"size = {size}, stride = {stride}: 1 <= size <= {tuple(shape[-2:])} and stride >= 1 "
            f"are needed for images of shape {tuple(shape)}"
        )
