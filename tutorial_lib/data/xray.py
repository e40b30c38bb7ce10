"""Mixed X-rays with known parts: one picture painted over another, and the radiograph of both."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from tutorial_lib.super_resolution import imresize

from .download import data_dir
from .files import read_image
from .guided import luma
from .images import photograph

PAINTINGS = {
    "harvesters": ("the_harvesters.png", 0.42, 0.5),
    "starry night": ("starry_night.jpg", 0.5, 0.5),
    "shipwreck": ("shipwreck.jpg", 0.5, 0.5),
}  # file, and where the centre of the square lies, as parts of what is free across and down
PAIRS = (("harvesters", "starry night"), ("shipwreck", "harvesters"))
BUNDLED = (("coffee", "astronaut"), ("chelsea", "rocket"))
DARK, BUMP, CENTRE, WIDTH = 0.1, 0.3, 0.2, 0.1  # of the response
CRACK_CELLS, CRACK_WIDTH = 24, 0.9  # pixels between the cracks, and pixels wide
THREADS = 5.0  # pixels from thread to thread


class Mixture(NamedTuple):
    """A painting over another one, and its radiograph; xray == surface + hidden exactly."""

    visible: Float[Tensor, "3 h w"]
    xray: Float[Tensor, "h w"]
    surface: Float[Tensor, "h w"]
    hidden: Float[Tensor, "h w"]


def gray_response(picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    """How bright paint of the gray g = `luma(picture)` appears in the radiograph.

        f(g) = 0.1 + 0.9 g^(3/2) + 0.3 exp(-((g - 0.2) / 0.1)^2)

    White paint is bright, because lead absorbs X-rays. The bump stands for dark colours of heavy
    elements, such as vermilion, which is mercury, and umber, which is iron and manganese. The
    response is not monotone: it rises to 0.48 at g = 0.21, falls to 0.32 at g = 0.36, and rises to
    1. A dark and a middle gray may look the same to the X-ray, and an edge may turn its sign. The
    curve is made up, not measured.

    Args:
        picture: (3, h, w), intensities in [0, 1].

    Returns:
        (h, w), in [0.1, 1].

    Raises:
        ValueError: intensities outside [0, 1].

    >>> gray_response(torch.tensor([0.0, 0.21, 0.36, 1.0]).expand(3, 1, 4)).round(decimals=2)
    tensor([[0.1100, 0.4800, 0.3200, 1.0000]])
    """
    if not bool(((picture >= 0) & (picture <= 1)).all()):
        raise ValueError(
            f"the intensities of a picture must be in [0, 1], got [{float(picture.min()):g}, "
            f"{float(picture.max()):g}]"
        )
    g = luma(picture)
    bump = torch.exp(-(((g - CENTRE) / WIDTH) ** 2))
    return (DARK + (1 - DARK) * g**1.5 + BUMP * bump).clamp(max=1)


def mixture(
    visible: Float[Tensor, "3 h w"],
    hidden: Float[Tensor, "3 h2 w2"],
    *,
    ratio: float | int,
    shift: tuple[int, int] = (0, 0),
    weave: float | int = 0.0,
    cracks: float | int = 0.0,
    seed: int = 0,
) -> Mixture:
    """The radiograph of `visible` painted over `hidden`: thin layers add up.

        surface = ratio f(visible) + weave * threads - cracks * lines
        hidden  = (1 - ratio) f(hidden),    xray = surface + hidden,    f = `gray_response`.

    Threads of the canvas and cracks of the paint belong to the surface: they were not part of the
    concealed design. The photograph shows neither. Without them the parts are in [0, 1].

    Args:
        visible, hidden: the two pictures, of one size, intensities in [0, 1].
        ratio: share of the surface, above 0 and below 1.
        shift: the photograph lies so many pixels below, and to the right of, the radiograph; its
            border is repeated. Neither part moves.
        weave: amplitude of a plain weave, 5 pixels from thread to thread.
        cracks: depth of a net of dark lines, one pixel wide.
        seed: of the cracks.

    Raises:
        ValueError: sizes that differ, intensities outside [0, 1], numbers out of range.

    >>> mix = mixture(torch.rand(3, 8, 8), torch.rand(3, 8, 8), ratio=0.6, weave=0.05)
    >>> torch.equal(mix.xray, mix.surface + mix.hidden)
    True
    """
    if visible.shape != hidden.shape:
        raise ValueError(
            f"the two pictures must be of one size, got {tuple(visible.shape)} and "
            f"{tuple(hidden.shape)}"
        )
    if not (0 < ratio < 1 and 0 <= weave < math.inf and 0 <= cracks < math.inf):
        raise ValueError(
            f"ratio = {ratio}, weave = {weave}, cracks = {cracks}: expected 0 < ratio < 1 and "
            "amplitudes of at least 0"
        )
    h, w = visible.shape[-2:]
    surface = ratio * gray_response(visible)
    if weave > 0:
        surface = surface + weave * _threads(h, w).to(surface)
    if cracks > 0:
        surface = surface - cracks * _lines(h, w, seed).to(surface)
    below = (1 - ratio) * gray_response(hidden)
    rows = (torch.arange(h) - shift[0]).clamp(0, h - 1)
    columns = (torch.arange(w) - shift[1]).clamp(0, w - 1)
    return Mixture(visible[:, rows][:, :, columns], surface + below, surface, below)


def xray_pairs(
    *, size: int = 256, bundled: bool = False
) -> list[tuple[str, Float[Tensor, "3 s s"], Float[Tensor, "3 s s"]]]:
    """Pairs of pictures, one to be painted over the other: (name, visible, hidden).

    The paintings in the folder `paintings` of `data_dir()`, which you may fill from museums, where
    it holds all three files of `PAINTINGS`: Bruegel's The Harvesters over Van Gogh's Starry Night,
    and Turner's Shipwreck over The Harvesters. Otherwise photographs that need no download.

    Args:
        size: squares of size x size pixels, reduced from the largest that fit.
        bundled: the photographs in any case.

    >>> [name for name, _, _ in xray_pairs(size=32, bundled=True)]
    ['coffee over astronaut', 'chelsea over rocket']
    """
    at_hand = not bundled and paintings_on_disk()
    read = _painting if at_hand else _photograph
    return [
        (f"{a} over {b}", read(a, size), read(b, size)) for a, b in (PAIRS if at_hand else BUNDLED)
    ]


def paintings_on_disk() -> bool:
    """Whether the folder `paintings` of `data_dir()` holds the files of `PAINTINGS`."""
    return all((data_dir() / "paintings" / file).is_file() for file, _, _ in PAINTINGS.values())


def _photograph(name: str, size: int) -> Float[Tensor, "3 size size"]:
    return photograph(name, size=size, gray=False).clamp(0, 1)


def _painting(name: str, size: int) -> Float[Tensor, "3 size size"]:
    file, across, down = PAINTINGS[name]
    x = read_image(data_dir() / "paintings" / file)
    h, w = x.shape[-2:]
    side = round(0.94 * min(h, w))  # without the edge of the canvas and its frame
    top, left = round(down * (h - side)), round(across * (w - side))
    return imresize(x[:, top : top + side, left : left + side], (size, size)).clamp(0, 1)


def _threads(h: int, w: int) -> Float[Tensor, "h w"]:
    """Plain weave in [-1, 1]: across and down in turn the thread above, like a chessboard."""
    i, j = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.cos(math.pi * i / THREADS) * torch.cos(math.pi * j / THREADS)


def _lines(h: int, w: int, seed: int) -> Float[Tensor, "h w"]:
    """1 on the borders of the cells of scattered points, 0 elsewhere, soft between."""
    rng = np.random.default_rng(seed)
    n = max(3, round((h + 2 * CRACK_CELLS) * (w + 2 * CRACK_CELLS) / CRACK_CELLS**2))
    low, high = -CRACK_CELLS, np.array([h, w]) + CRACK_CELLS
    points = rng.uniform(low, high, size=(n, 2))
    grid = np.stack(np.mgrid[:h, :w], -1).reshape(-1, 2).astype(float)
    near, far = cKDTree(points).query(grid, k=2)[0].T
    away = torch.from_numpy(far - near).reshape(h, w) / 2  # about the distance from the border
    return (1.5 - away / (CRACK_WIDTH / 2)).clamp(0, 1).float()
