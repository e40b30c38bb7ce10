"""Pairs of images of one scene in two modalities, for super-resolution with a guide.

A pair is a target, such as a depth map, and a guide, such as a photograph: same scene, same grid.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import skimage.data
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutorial_lib.super_resolution import crop, downscale, imresize, upscale

from .download import data_dir
from .files import read_image
from .hyperspectral import cave, cave_scenes
from .images import photograph
from .patches import LUMA, random

GUIDES, TARGETS = ("guide", "rgb"), ("disparity", "depth", "nir", "target")
TESTED = {
    "depth": ("books", "moebius"),
    "nir": ("201", "401"),
    "spectral": ("balloons", "oil_painting"),
}
HOMES = {
    "depth": "vision.middlebury.edu/stereo/data",
    "nir": "the RGB-NIR scene set of EPFL, Brown and Suesstrunk 2011",
    "spectral": "www.cs.columbia.edu/CAVE/databases/multispectral",
}
BAND = 24  # of CAVE: 640 nm


class Pair(NamedTuple):
    """Two images of one scene on one grid, intensities in [0, 1]."""

    name: str
    guide: Float[Tensor, "*channels h w"]
    target: Float[Tensor, "h w"]


def luma(x: Float[Tensor, "*channels h w"]) -> Float[Tensor, "h w"]:
    """0.299 R + 0.587 G + 0.114 B (BT.601) of a colour image (3, h, w); a gray one as it is.

    Raises:
        ValueError: another shape.
    """
    if x.ndim == 3 and x.shape[0] == 3:
        return torch.einsum("c,chw->hw", torch.tensor(LUMA).to(x), x)
    if x.ndim != 2:
        raise ValueError(f"expected gray (h, w) or colour (3, h, w), got {tuple(x.shape)}")
    return x


def read_gray(path: str | Path) -> Float[Tensor, "h w"]:
    """A picture file in [0, 1]; of a coloured one the `luma`. Errors name the file."""
    x = read_image(path)
    try:
        return luma(x)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def pairs(folder: str | Path) -> list[Pair]:
    """The pairs of a folder, in the order of their names.

    Args:
        folder: holds `X_guide.png` beside `X_disparity.png`, or two folders `guide` and
            `disparity` with files of equal names. `rgb` stands for `guide` as well, and `depth`,
            `nir` or `target` for `disparity`; the type of file may be another one.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: no pair, a file without its partner, sizes that differ, files not read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    files = {role: _files(folder, words) for role, words in (("g", GUIDES), ("t", TARGETS))}
    if not files["g"] and not files["t"]:
        raise ValueError(
            f"{folder}: holds no pairs X_guide.png and X_disparity.png, nor two folders of such "
            f"names (guide: {', '.join(GUIDES)}; target: {', '.join(TARGETS)})"
        )
    alone = sorted(files["g"].keys() ^ files["t"].keys())
    if alone:
        raise ValueError(f"{folder}: {', '.join(alone)} without guide or target")
    return [_pair(name, files["g"][name], files["t"][name]) for name in sorted(files["g"])]


def check_pair(guide: Tensor, target: Tensor, *, scale: int = 1, source: str = "pair") -> None:
    """Refuse a guide whose size is not `scale` times that of the target.

    Raises:
        ValueError: with both shapes.
    """
    if tuple(guide.shape[-2:]) != tuple(scale * n for n in target.shape[-2:]):
        times = "the size" if scale == 1 else f"{scale} times the size"
        raise ValueError(
            f"{source}: the guide {tuple(guide.shape[-2:])} must have {times} of the target "
            f"{tuple(target.shape[-2:])}, pixel on pixel"
        )


def _files(folder: Path, words: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name in words:
            found |= {p.stem: p for p in sorted(path.iterdir()) if p.is_file()}
        for word in words:
            if path.is_file() and path.stem.endswith(f"_{word}"):
                found[path.stem.removesuffix(f"_{word}")] = path
    return found


def _pair(name: str, guide: Path, target: Path) -> Pair:
    read_gray(guide)  # refuses what is neither gray nor colour
    pair = Pair(name, read_image(guide), read_gray(target))
    check_pair(pair.guide, pair.target, source=name)
    return pair


# The sets of the book ----------------------------------------------------------------------------


def on_disk(kind: str) -> bool:
    """Whether the pairs of a kind ("depth", "nir", "spectral") are in `data_dir()`."""
    try:
        _all(kind)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def guided_pairs(kind: str, split: str) -> list[Pair]:
    """The pairs of one kind to train on, or those that no network of the book has seen.

    Args:
        kind: "depth" (Middlebury: disparity in 1/255; Books and Moebius of 2005 are for testing),
            "nir" (RGB-NIR scenes of EPFL; 201 and 401 are for testing), "spectral" (CAVE: the band
            at 640 nm, guided by the colours that the bands add up to; balloons and oil_painting
            are for testing).
        split: "train" or "test".

    Raises:
        ValueError: another kind or split. FileNotFoundError: the set is not on disk.
    """
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: allowed are 'train' and 'test'")
    return [p for p in _all(kind) if (p.name in TESTED[kind]) == (split == "test")]


def motorcycle() -> Pair:
    """Left view and disparity of Middlebury's motorcycle (2014), which need no download.

    The disparity, 8 to 60 pixels, is given in 1/64; where it is unknown, that of the nearest pixel
    is taken. No network of the book is trained on it.

    >>> motorcycle().target.shape
    torch.Size([500, 741])
    """
    disparity = skimage.data.stereo_motorcycle()[2]
    unknown = ~np.isfinite(disparity)
    nearest = scipy.ndimage.distance_transform_edt(
        unknown, return_distances=False, return_indices=True
    )
    target = torch.from_numpy(np.float32(disparity[tuple(nearest)] / 64))
    return Pair("motorcycle", photograph("motorcycle", size=None, gray=False), target)


def _all(kind: str) -> list[Pair]:
    if kind not in TESTED:
        raise ValueError(f"unknown kind {kind!r}: allowed are {', '.join(TESTED)}")
    try:
        if kind == "depth":
            return pairs(data_dir() / "middlebury") + pairs(data_dir() / "middlebury2005")
        if kind == "nir":
            return pairs(data_dir() / "nirscene")
        return [_spectral(name) for name in cave_scenes()]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"the pairs of kind {kind!r} are not on disk ({error}); they come from {HOMES[kind]}"
        ) from error


def _spectral(name: str) -> Pair:
    """The band at 640 nm, guided by red, green and blue: means of 600-700, 500-600, 400-490 nm."""
    x = cave(name)
    colours = torch.stack([x[20:].mean(0), x[10:21].mean(0), x[:10].mean(0)])
    return Pair(name, colours, x[BAND])


# Training patches --------------------------------------------------------------------------------


def guided_patches(
    index: Int[Tensor, " b"],
    *,
    kind: str,
    scale: int,
    size: int,
    draws: int = 1,
    seed: int = 0,
    bundled: bool = False,
) -> tuple[Float[Tensor, "b s s"], Float[Tensor, "b s s"], Float[Tensor, "b s s"]]:
    """Training patches x, y, z: the bicubic estimate of the target, the guide, the target.

    The pairs of `guided_pairs` to train on, and the same at half the size, give a crop in one of
    eight orientations. Contrast is varied: the guide is multiplied by a factor of .5 to 1.5, a
    depth map by another one, half the time with its sign turned, other targets by the same.

    Args:
        index: global sample numbers; each patch depends on its number and on `seed` alone.
        kind: as in `guided_pairs`.
        scale: the target has been reduced by this factor and enlarged again, with `imresize`.
        size: pixels a side.
        draws: crops to choose from, each time that in which x is farthest from z: a quarter of the
            crops of depth maps holds nine tenths of what bicubic interpolation misses.
        seed: of the whole run.
        bundled: draw from `bundled_pairs` instead (for quick trials).

    Returns:
        x, y and z, (b, size, size), with their means.
    """
    triples = _triples(kind, scale, bundled)
    every = [int(i) * draws + k for i in index for k in range(draws)]
    x, y, z = torch.stack([_cut(triples, random(i, seed), kind, size) for i in every]).unbind(1)
    missing = (x - z).square().sum((1, 2)).view(-1, draws)
    chosen = draws * torch.arange(len(index)) + missing.argmax(1)
    return x[chosen], y[chosen], z[chosen]


def _cut(
    triples: list[Float[Tensor, "3 _h _w"]], g: torch.Generator, kind: str, size: int
) -> Float[Tensor, "3 size size"]:
    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=g))

    ends = torch.tensor([t.shape[-1] * t.shape[-2] for t in triples]).cumsum(0)
    picture = triples[int(torch.searchsorted(ends, draw(int(ends[-1])), right=True))]
    h, w = picture.shape[-2:]
    top, left, way = draw(h - size + 1), draw(w - size + 1), draw(8)
    patch = picture[:, top : top + size, left : left + size].rot90(way % 4, (1, 2))
    gain = 0.5 + torch.rand(2, generator=g)
    depth = gain[0] * (2 * draw(2) - 1) if kind == "depth" else gain[1]
    factors = torch.stack([depth, gain[1], depth])[:, None, None]
    return factors * (patch.mT if way > 3 else patch)


@cache
def _triples(kind: str, scale: int, bundled: bool) -> list[Float[Tensor, "3 _h _w"]]:
    """Estimate, guide and target of each training pair, at full and at half size."""
    known = bundled_pairs(kind) if bundled else guided_pairs(kind, "train")
    triples = []
    for pair in known:
        guide, target = luma(pair.guide), pair.target
        small = tuple(n // 2 for n in target.shape)
        # Half the size keeps the edges of a depth map sharp: every other pixel, no mean.
        half = target[::2, ::2] if kind == "depth" else imresize(target, small)
        half = half[: small[0], : small[1]]
        for y, z in ((guide, target), (imresize(guide, small), half)):
            y, z = crop(y, scale=scale), crop(z, scale=scale)
            triples.append(torch.stack([bicubic(z, scale=scale), y, z]))
    return triples


def bicubic(target: Float[Tensor, "*batch h w"], *, scale: int) -> Float[Tensor, "*batch h w"]:
    """The target reduced by `scale`, and enlarged again: what super-resolution begins with."""
    return upscale(downscale(target, scale=scale), scale=scale)


def guided_origin(kind: str, *, bundled: bool = False) -> str:
    """What `guided_patches` draws from."""
    if bundled:
        return "bundled pictures"
    return {
        "depth": "12 pairs of Middlebury",
        "nir": "4 RGB-NIR scenes of EPFL",
        "spectral": "22 scenes of CAVE",
    }[kind]


def bundled_pairs(kind: str) -> list[Pair]:
    """Pairs without a download: the motorcycle's depth, or red channels with green as guides."""
    if kind == "depth":
        return [motorcycle()]
    names = ("astronaut", "chelsea", "coffee")
    colours = {name: photograph(name, size=None, gray=False) for name in names}
    return [Pair(name, x[1], x[0]) for name, x in colours.items()]
