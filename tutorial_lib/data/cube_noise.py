"""The noise that hyperspectral denoising is measured with: every case with its exact parameters."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CASES = ("iid", "noniid", "correlated", "stripes", "deadlines", "impulse", "mixture")
PEAK, WIDTH = 23.08 / 255, 0.157  # of the levels of the case "correlated"
COLUMNS = (0.05, 0.15)  # share of the columns of a band that stripes or deadlines hit
OFFSET = 0.25  # largest size of a stripe
DENSITIES = (0.1, 0.3, 0.5, 0.7)  # of salt and pepper


class NoisyCube(NamedTuple):
    """A noisy cube and what was done to it."""

    cube: Float[Tensor, "bands h w"]
    sigma: Float[Tensor, " bands"]  # standard deviation of the Gaussian part of each band
    hit: dict[str, list[int]]  # "stripes", "deadlines", "impulse": the bands that have them


def add_cube_noise(
    x: Float[Tensor, "bands h w"], case: str, *, sigma: float | None = None, seed: int = 0
) -> NoisyCube:
    """Spoil a cube as the literature does; nothing is clipped.

    Gaussian noise first, independent in all samples, with a standard deviation for each band:

        iid         sigma
        noniid      uniform in [0, sigma]
        correlated  23.08/255 exp(-(b/B - 1/2)^2 / (4 x 0.157^2)) for band b = 0 ... B - 1
        all others  uniform in [0, sigma]

    then, on floor(B/3) bands drawn at random,

        stripes     5 to 15 % of the columns get an offset each, uniform in [-0.25, 0.25]
        deadlines   5 to 15 % of the columns are set to 0
        impulse     10, 30, 50 or 70 % of the samples, the same chance for each, are set to 0 or 1
        mixture     all three, on disjoint sets of floor(B/3) bands

    Args:
        x: (bands, h, w), intensities in [0, 1]; three bands or more for the last four cases.
        case: one of `CASES`.
        sigma: in the unit of x: 15/255, 55/255 and 95/255 are usual for "noniid", 95/255 for
            "mixture"; to be left out for "correlated", which brings its own.
        seed: the same seed gives the same noise on every device and in every precision.

    Returns:
        The noisy cube, the levels, and which bands were hit.

    Raises:
        ValueError: an unknown case, no cube, NaN, a sigma that is negative, missing or not wanted.

    References: K. Wei, Y. Fu, H. Huang, 3-D quasi-recurrent neural network for hyperspectral image
    denoising, IEEE Trans. Neural Networks and Learning Systems, 2021 (stripes, deadlines, impulse,
    mixture); T. Bodrito, A. Zouaoui, J. Chanussot, J. Mairal, A trainable spectral-spatial sparse
    coding model for hyperspectral image restoration, NeurIPS 2021 (noniid, correlated).

    >>> add_cube_noise(torch.zeros(31, 64, 64), "correlated").sigma.max().mul(255).round()
    tensor(23.)
    """
    _check(x, case, sigma)
    n, h, w = x.shape
    rng = np.random.default_rng(seed)
    if case == "correlated":
        levels = PEAK * np.exp(-((np.arange(n) / n - 0.5) ** 2) / (4 * WIDTH**2))
    elif case == "iid":
        levels = np.full(n, sigma)
    else:
        levels = rng.uniform(0, sigma, n)
    y = x.cpu().double().numpy() + levels[:, None, None] * rng.standard_normal((n, h, w))
    order, third = rng.permutation(n), n // 3
    kinds = [k for k in ("stripes", "deadlines", "impulse") if case in (k, "mixture")]
    hit = {k: sorted(order[i * third : (i + 1) * third].tolist()) for i, k in enumerate(kinds)}
    for kind, bands in hit.items():
        for b in bands:
            if kind == "impulse":
                struck = rng.uniform(size=(h, w)) < rng.choice(DENSITIES)
                y[b] = np.where(struck, rng.integers(0, 2, (h, w)), y[b])
                continue
            low, high = (math.ceil(share * w) for share in COLUMNS)
            columns = rng.permutation(w)[: rng.integers(low, high + 1)]
            if kind == "stripes":
                y[b][:, columns] += rng.uniform(-OFFSET, OFFSET, len(columns))
            else:
                y[b][:, columns] = 0.0
    return NoisyCube(torch.from_numpy(y).to(x), torch.from_numpy(levels).to(x), hit)


def _check(x: Tensor, case: str, sigma: float | None) -> None:
    if case not in CASES:
        raise ValueError(f"unknown case {case!r}: known are {', '.join(CASES)}")
    if x.ndim != 3 or not x.is_floating_point() or x.numel() == 0 or x.isnan().any():
        raise ValueError(f"{x.dtype} of shape {tuple(x.shape)}: a cube (bands, h, w) without NaN")
    if case in CASES[3:] and len(x) < 3:
        raise ValueError(f"{len(x)} bands: {case!r} needs three or more")
    if (sigma is None) != (case == "correlated"):
        raise ValueError(f"sigma = {sigma}: {case!r} {'has its own' if sigma else 'needs one'}")
    if sigma is not None and not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be at least 0 and finite, got {sigma}")
