"""Super-resolution with coupled dictionaries: bicubic resizing, features, one code for two patches.

A small image y (h, w) is A x, A the bicubic reduction by `scale` s; `middle` is y brought back to
the size of x by bicubic interpolation. Features of a patch of the middle image are coded in the
dictionary `low`, and the same code in `high` gives what bicubic interpolation has lost there.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .dictionary import average_patches, extract_patches, learn_dictionary
from .prox import _check_values
from .sparse_coding import omp

WINDOW = 3  # pixels of the small image a side of a patch
ENERGY = 0.999  # of the features, kept by their principal components


class CoupledDictionary(NamedTuple):
    """Two dictionaries for one code.

    Args:
        components: (f, n), orthonormal columns: features of f numbers are reduced to n.
        low: (n, k), unit atoms, of reduced features.
        high: ((3 s)^2, k), of patches of lost detail.
    """

    components: Float[Tensor, "f n"]
    low: Float[Tensor, "n k"]
    high: Float[Tensor, "p k"]


# Resizing ----------------------------------------------------------------------------------------


def imresize(
    x: Float[Tensor, "*batch h w"], shape: tuple[int, int], *, antialias: bool = True
) -> Float[Tensor, "*batch new_h new_w"]:
    """Bicubic resizing, that of MATLAB's `imresize`.

    Along each axis of n samples, brought to m = r n, sample j of the result is the mean of the
    samples i with weights w(r (i - c)), c = (j + 1/2) / r - 1/2, where w is Keys' cubic

        w(t) = 3/2 |t|^3 - 5/2 |t|^2 + 1 for |t| <= 1, -1/2 |t|^3 + 5/2 |t|^2 - 4 |t| + 2 to 2,

    wide as 4 / r samples if r < 1, and w(i - c) if r >= 1 or without antialias. Beyond the borders
    the image is mirrored, the border sample twice.

    Args:
        x: images (*batch, h, w).
        shape: the new (h, w).
        antialias: widen the cubic when the image is reduced.

    Raises:
        ValueError: NaN, integers, fewer than two axes, a size below 1.

    Reference: R. G. Keys, Cubic convolution interpolation for digital image processing, IEEE Trans.
    Acoustics, Speech, and Signal Processing, 1981.

    >>> imresize(torch.arange(16.0).expand(2, 16), (2, 8))[0, 2:6]
    tensor([ 4.5000,  6.5000,  8.5000, 10.5000])
    """
    _check_values(x, "x")
    if x.ndim < 2 or min(x.shape[-2:]) < 1 or min(shape) < 1:
        raise ValueError(
            f"x of shape {tuple(x.shape)} cannot be resized to {tuple(shape)}: images (*batch, h, "
            "w) and sizes of at least 1 are needed"
        )
    rows, columns = (
        _weights(n, m, antialias).to(x) for n, m in zip(x.shape[-2:], shape, strict=True)
    )
    return rows @ x @ columns.mT


@lru_cache(maxsize=64)
def _weights(n: int, m: int, antialias: bool) -> Float[Tensor, "m n"]:
    r = m / n
    wide = max(1.0, 1 / r) if antialias else 1.0
    centre = (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) / r - 0.5
    reach = int(2 * wide) + 2
    i = centre.floor() + torch.arange(-reach, reach + 1)
    t = ((i - centre) / wide).abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    w = torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))
    w = w / w.sum(1, keepdim=True)
    i = i.long() % (2 * n)  # mirrored: 0 ... n - 1, n - 1 ... 0
    i = torch.where(i < n, i, 2 * n - 1 - i)
    return torch.zeros(m, n, dtype=torch.float64).scatter_add_(1, i, w)


def downscale(x: Float[Tensor, "*batch h w"], *, scale: int) -> Float[Tensor, "*batch _h _w"]:
    """`imresize` to 1/scale of both sizes, which must be multiples of it.

    >>> downscale(torch.rand(9, 12), scale=3).shape
    torch.Size([3, 4])
    """
    _check_size(x, scale, least=1)
    return imresize(x, (x.shape[-2] // scale, x.shape[-1] // scale))


def upscale(y: Float[Tensor, "*batch h w"], *, scale: int) -> Float[Tensor, "*batch _h _w"]:
    """`imresize` to `scale` times both sizes: plain bicubic interpolation.

    >>> upscale(torch.ones(3, 4), scale=3).shape
    torch.Size([9, 12])
    """
    return imresize(y, (y.shape[-2] * scale, y.shape[-1] * scale))


def crop(x: Float[Tensor, "*batch h w"], *, scale: int) -> Float[Tensor, "*batch _h _w"]:
    """The upper left part of an image whose sizes are the largest multiples of scale.

    >>> crop(torch.rand(10, 11), scale=3).shape
    torch.Size([9, 9])
    """
    h, w = x.shape[-2:]
    return x[..., : h - h % scale, : w - w % scale]


def luminance(colour: Float[Tensor, "*batch rgb h w"]) -> Float[Tensor, "*batch h w"]:
    """Y of YCbCr, ITU-R BT.601 studio range: 16/255 for black to 235/255 for white.

    Args:
        colour: red, green, blue in [0, 1].

    Raises:
        ValueError: NaN, integers, another number of channels.

    >>> 255 * luminance(torch.ones(3, 1, 1))
    tensor([[235.]])
    """
    _check_values(colour, "colour")
    if colour.ndim < 3 or colour.shape[-3] != 3:
        raise ValueError(f"colour of shape {tuple(colour.shape)}: (*batch, 3, h, w) is needed")
    r, g, b = colour.unbind(-3)
    return (16 + 65.481 * r + 128.553 * g + 24.966 * b) / 255


# Coupled dictionaries ----------------------------------------------------------------------------


def features(
    middle: Float[Tensor, "*batch h w"], *, scale: int
) -> Float[Tensor, "*batch patches f"]:
    """First and second differences of all patches, at the distance of pixels of the small image.

    The four maps x[i] - x[i - s] and (x[i + s] - 2 x[i] + x[i - s]) / 2 along both axes, for s =
    `scale`, zero beyond the border, are cut into patches of 3 s x 3 s pixels at stride s, the outer
    ring of s pixels left out; f = 4 (3 s)^2.

    Raises:
        ValueError: NaN, integers, scale < 2, an image smaller than 5 s x 5 s or whose sizes are no
            multiples of s.

    Reference: R. Zeyde, M. Elad, M. Protter, On single image scale-up using
    sparse-representations, Curves and Surfaces, 2012.

    >>> features(torch.rand(10, 12), scale=2).shape
    torch.Size([2, 144])
    """
    _check_values(middle, "middle")
    _check_size(middle, scale)
    s = scale
    padded = torch.nn.functional.pad(middle, (s, s, s, s))
    rows, columns = padded[..., s:-s], padded[..., s:-s, :]
    h, w = middle.shape[-2:]
    maps = [
        middle - rows[..., :h, :],
        middle - columns[..., :w],
        (rows[..., :h, :] + rows[..., 2 * s :, :]) / 2 - middle,
        (columns[..., :w] + columns[..., 2 * s :]) / 2 - middle,
    ]
    return torch.cat([_patches(u, s) for u in maps], -1)


def fit_high(
    details: Float[Tensor, "signals p"], codes: Float[Tensor, "_ k"]
) -> Float[Tensor, "p k"]:
    """argmin_D ||E - codes D^T||_F^2, in double precision: the dictionary that suits given codes.

    An atom that no code uses is zero: of all minimisers, the one of least norm.

    Raises:
        ValueError: NaN, integers, different numbers of signals.

    >>> fit_high(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([[1.0], [2.0]]))
    tensor([[1.],
            [2.]])
    """
    _check_values(details, "details")
    _check_values(codes, "codes")
    if details.ndim != 2 or codes.ndim != 2 or len(details) != len(codes):
        raise ValueError(
            f"details {tuple(details.shape)} and codes {tuple(codes.shape)} do not fit: (signals, "
            "p) and (signals, k) are needed"
        )
    c, e = codes.double(), details.double()
    return (torch.linalg.pinv(c.mT @ c, hermitian=True) @ (c.mT @ e)).mT.to(details)


def train_coupled(
    images: list[Float[Tensor, "_ _"]],
    *,
    scale: int,
    atoms: int = 1024,
    n_nonzero_coefs: int = 3,
    patches: int = 100_000,
    steps: int = 20,
    seed: int = 0,
) -> CoupledDictionary:
    """Both dictionaries from sharp images: `low` by K-SVD, `high` by least squares.

    Each image is reduced and brought back by `imresize`. With F the reduced features, E what the
    middle image lacks in the same patches, both as rows,

        min_{low, G} ||F - G low^T||_F^2, at most n_nonzero_coefs in each row of G,

    then `fit_high` for the codes G that `omp` finds in the last `low`.

    Args:
        images: gray, [0, 1]; each is cropped to a multiple of `scale`.
        scale: 2 or more.
        atoms: k; the start is k of the reduced features.
        n_nonzero_coefs: of every code.
        patches: how many, drawn from all of all images; a patch without any feature is not drawn.
        steps: of K-SVD.
        seed: of the draw.

    Raises:
        ValueError: as `features`, `learn_dictionary`; fewer patches than atoms.

    Reference: as `features`.

    >>> pair = train_coupled([torch.rand(40, 40)], scale=2, atoms=50, patches=300, steps=1)
    >>> pair.high.shape
    torch.Size([36, 50])
    """
    chosen = torch.Generator().manual_seed(seed)
    all_features, all_details = [], []
    share = max(1, patches // max(1, len(images)))
    for x in images:
        x = crop(x, scale=scale)
        middle = upscale(downscale(x, scale=scale), scale=scale)
        found = features(middle, scale=scale)
        lively = (found != 0).any(1).nonzero()[:, 0]
        rows = lively[torch.randperm(len(lively), generator=chosen)[:share]]
        all_features.append(found[rows])
        all_details.append(_patches(x - middle, scale)[rows])
    F, E = torch.cat(all_features), torch.cat(all_details)
    if len(F) < atoms:
        raise ValueError(f"{len(F)} patches for atoms = {atoms}: at least as many are needed")
    energy, vectors = torch.linalg.eigh(F.mT.double() @ F.double())
    lost = energy.clamp(min=0).cumsum(0) / energy.sum()
    components = vectors[:, lost > 1 - ENERGY].flip(1).to(F)
    F = F @ components
    start = F[torch.randperm(len(F), generator=chosen)[:atoms]].mT
    start = start / torch.linalg.vector_norm(start, dim=0)
    low = learn_dictionary(F, start, n_nonzero_coefs=n_nonzero_coefs, steps=steps).dictionary
    codes = omp(F, low, n_nonzero_coefs=n_nonzero_coefs)
    return CoupledDictionary(components, low, fit_high(E, codes))


def super_resolve(
    y: Float[Tensor, "h w"],
    pair: CoupledDictionary,
    *,
    n_nonzero_coefs: int = 3,
    gain: float = 1.0,
) -> Float[Tensor, "new_h new_w"]:
    """The image enlarged by `scale`: bicubic interpolation plus details from the codes.

    For each patch, gamma = omp(features, low), detail = high gamma; overlapping details are
    averaged. The outer ring of one pixel of y gets no detail.

    Args:
        y: the small image, in [0, 1], at least 5 x 5.
        pair: trained for one scale, which is read off the length of its atoms.
        n_nonzero_coefs: of each code.
        gain: factor of the details, 0 for bicubic interpolation.

    Raises:
        ValueError: as `features` and `omp`; a pair whose parts do not fit.

    Reference: as `features`.

    >>> flat = torch.full((6, 7), 0.5)
    >>> pair = CoupledDictionary(torch.eye(144), torch.eye(144), torch.ones(36, 144))
    >>> torch.allclose(super_resolve(flat, pair), torch.full((12, 14), 0.5))
    True
    """
    scale = scale_of(pair)
    middle = upscale(y, scale=scale)
    codes = omp(
        features(middle, scale=scale) @ pair.components, pair.low, n_nonzero_coefs=n_nonzero_coefs
    )
    inside = tuple(n - 2 * scale for n in middle.shape)
    detail = average_patches(codes @ pair.high.mT, inside, stride=scale)
    return middle + gain * torch.nn.functional.pad(detail, (scale,) * 4)


def back_project(
    x: Float[Tensor, "*batch h w"], y: Float[Tensor, "*batch small_h small_w"], *, steps: int = 20
) -> Float[Tensor, "*batch h w"]:
    """Iterated back-projection, x <- x + p * B (y - A x): an x near the start with A x near y.

    A and B reduce and enlarge by `imresize`; p is the Gaussian of 5 x 5 samples and standard
    deviation 1, squared, scaled to sum 1; the image is continued by its border samples.

    Args:
        x: the start, sizes that are one multiple of those of y.
        y: the small image that was observed.
        steps: 20 is published; 0 gives x.

    Raises:
        ValueError: as `imresize`; sizes that do not fit, steps < 0.

    Reference: M. Irani, S. Peleg, Improving resolution by image registration, CVGIP, 1991; J. Yang,
    J. Wright, T. Huang, Y. Ma, IEEE Trans. Image Processing, 2010.

    >>> y = torch.rand(8, 8)
    >>> x = back_project(torch.zeros(16, 16), y)
    >>> bool((downscale(x, scale=2) - y).norm() < 0.05 * y.norm())
    True
    """
    _check_values(x, "x")
    _check_values(y, "y")
    if steps < 0:
        raise ValueError(f"steps = {steps}: at least 0 is needed")
    scale = x.shape[-1] // max(1, y.shape[-1])
    if scale < 1 or x.shape != (*y.shape[:-2], scale * y.shape[-2], scale * y.shape[-1]):
        raise ValueError(
            f"x of shape {tuple(x.shape)} is no multiple of y of shape {tuple(y.shape)}"
        )
    g = torch.exp(-(torch.arange(-2.0, 3.0, dtype=x.dtype, device=x.device) ** 2))
    p = torch.outer(g, g)[None, None] / g.sum() ** 2
    for _ in range(steps):
        lift = imresize(y - imresize(x, y.shape[-2:]), x.shape[-2:])
        flat = lift.reshape(-1, 1, *x.shape[-2:])
        flat = torch.nn.functional.pad(flat, (2, 2, 2, 2), mode="replicate")
        x = x + torch.nn.functional.conv2d(flat, p).reshape(x.shape)
    return x


def scale_of(pair: CoupledDictionary) -> int:
    """The scale that a pair was trained for: its patches have (3 s)^2 pixels.

    Raises:
        ValueError: parts that do not fit.
    """
    scale = math.isqrt(pair.high.shape[0]) // WINDOW
    f, n = 4 * (WINDOW * scale) ** 2, pair.low.shape[0]
    wanted = ((f, n), ((WINDOW * scale) ** 2, pair.low.shape[1]))
    if (tuple(pair.components.shape), tuple(pair.high.shape)) != wanted:
        raise ValueError(
            f"components {tuple(pair.components.shape)}, low {tuple(pair.low.shape)} and high "
            f"{tuple(pair.high.shape)} do not fit: (4 p, n), (n, k) and (p, k), p = (3 s)^2"
        )
    return scale


def _patches(x: Tensor, scale: int) -> Tensor:
    s = scale
    return extract_patches(x[..., s:-s, s:-s], size=WINDOW * s, stride=s)


def _check_size(x: Tensor, scale: int, least: int = WINDOW + 2) -> None:
    if scale < 2 or x.ndim < 2 or min(x.shape[-2:]) < least * scale:
        raise ValueError(
            f"scale = {scale} and an image of shape {tuple(x.shape)}: 2 or more is needed, and "
            f"{least} times the scale a side"
        )
    if x.shape[-2] % scale or x.shape[-1] % scale:
        raise ValueError(
            f"image of shape {tuple(x.shape)}: multiples of scale = {scale} are needed (crop)"
        )
