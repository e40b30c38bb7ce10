"""A network on a cube of any size: overlapping tiles, each with the record of its equilibrium."""

import itertools
import math
import warnings
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from tutorial_lib.fixed_points import Info
from tutorial_lib.operators import NotConvergedWarning
from tutorial_lib.whitening import whiten

RESIDUAL, EVALUATIONS, SHARE = 1e-3, 50, 0.95  # so many tiles are to get so far, in so many
SMALLEST, MULTIPLE = 16, 8  # pixels a side: of a cube, and those of a tile are a multiple
FEWEST = 4  # bands


@runtime_checkable
class CubeNetwork(Protocol):
    """A network that finds a fixed point for each of a batch of whitened cubes.

    `bands` is how many eigenimages it takes. The record of `restore` is of b solutions, or of
    several for each cube: then those of the whole batch follow one another.
    """

    bands: int

    def restore(self, Y: Float[Tensor, "b bands h w"]) -> tuple[Tensor, Info]: ...


class Tile(NamedTuple):
    """How the equilibrium of one tile was reached; of several solutions, the worst counts."""

    corner: tuple[int, int]  # first row and column
    residual: float  # ||f(z) - z|| / ||f(z)|| of the state that was used
    evaluations: int  # of f, until the residual was at most 1e-3; all of them if it never was
    converged: bool  # the residual was at most 1e-3 within 50 evaluations


class DenoisedCube(NamedTuple):
    """A cube and the records of its tiles."""

    cube: Float[Tensor, "bands h w"]
    tiles: list[Tile]


@torch.no_grad()
def denoise_cube(
    network: CubeNetwork,
    y: Float[Tensor, "bands h w"],
    *,
    tile: int = 64,
    overlap: int = 16,
    batch_size: int = 1,
    progress: str | None = None,
) -> DenoisedCube:
    """Denoise a cube: `whiten` it, restore the images in overlapping tiles, and go back.

    Tiles of equal size are spread evenly. Where several cover a sample, the result is their mean
    with weights that rise over `overlap` pixels from the border of a tile as the square of a sine.
    (`by_tiles` instead cuts margins off, and is exact for operations of bounded reach.)

    Args:
        network: its parameters say on which device the tiles are computed.
        y: noisy, its white near 1; four bands and 16 x 16 pixels or more.
        tile: pixels a side, a multiple of 8; a smaller cube is one tile, and is continued by
            reflection to a multiple of 8.
        overlap: of neighbouring tiles, in pixels, 0 to half a tile; the least, where they are
            spread over a size that they do not divide.
        batch_size: tiles at a time.
        progress: the title of a progress bar with the time left; None: no bar.

    Returns:
        `DenoisedCube`, not clipped, on the device of y.

    Raises:
        ValueError: too few bands or pixels, NaN, a tile or an overlap that is not possible.
    """
    _check(y, tile, overlap, batch_size)
    whitened = whiten(y, count=network.bands)
    images = whitened.detail
    h, w = y.shape[1:]
    sides = [tile if s >= tile else MULTIPLE * math.ceil(s / MULTIPLE) for s in (h, w)]
    extra = [max(0, side - s) for side, s in zip(sides, (h, w), strict=True)]
    images = pad(images, (0, extra[1], 0, extra[0]), mode="reflect")
    starts = [_starts(n, side, overlap) for n, side in zip(images.shape[1:], sides, strict=True)]
    windows = [
        _window(n, side, overlap, device=y.device)
        for n, side in zip(images.shape[1:], sides, strict=True)
    ]
    window = torch.outer(*windows)

    device = next((p.device for p in getattr(network, "parameters", list)()), y.device)
    corners = list(itertools.product(*starts))
    total, weight, tiles = torch.zeros_like(images), torch.zeros_like(images[0]), []
    with tqdm(total=len(corners), desc=progress, unit="tile", disable=progress is None) as bar:
        for k in range(0, len(corners), batch_size):
            part = corners[k : k + batch_size]
            places = [(slice(i, i + sides[0]), slice(j, j + sides[1])) for i, j in part]
            batch = torch.stack([images[:, i, j] for i, j in places])
            with warnings.catch_warnings():  # the records tell it
                warnings.simplefilter("ignore", NotConvergedWarning)
                x, info = network.restore(batch.to(device))
            for (i, j), one in zip(places, x.to(total), strict=True):
                total[:, i, j] += window * one
                weight[i, j] += window
            tiles += _records(part, info)
            bar.update(len(part))
    return DenoisedCube(whitened.cube((total / weight)[:, :h, :w]), tiles)


def report(tiles: list[Tile], *, most: int = 10) -> list[str]:
    """Lines that say how many tiles reached their equilibrium, and which did not.

    Args:
        tiles: records of one cube or more.
        most: so many of the others are listed, the largest residuals first.

    >>> print(*report([Tile((0, 0), 9e-4, 12, True), Tile((0, 48), 2e-3, 50, False)]))
    1 of 2 tiles (50.0 %, fewer than 95 %) reached a relative residual of 0.001 within 50
    evaluations, in the mean after 12.0   tile at row 0, column 48: 0.002 after 50
    """
    good = [t for t in tiles if t.converged]
    others = sorted((t for t in tiles if not t.converged), key=lambda t: -t.residual)
    share = f"{100 * len(good) / len(tiles):.1f} %"
    if len(good) < SHARE * len(tiles):
        share += f", fewer than {SHARE:.0%}".replace("%", " %")
    line = (
        f"{len(good)} of {len(tiles)} tiles ({share}) reached a relative residual of {RESIDUAL:g} "
        f"within {EVALUATIONS} evaluations"
    )
    if good:
        line += f", in the mean after {sum(t.evaluations for t in good) / len(good):.1f}"
    lines = [
        "  tile at row {}, column {}: ".format(*t.corner)
        + f"{t.residual:.2g} after {t.evaluations}"
        for t in others[:most]
    ]
    more = [f"  and {len(others) - most} more"] if len(others) > most else []
    return [line, *lines, *more]


def _records(corners: list[tuple[int, int]], info: Info) -> list[Tile]:
    reached = info.history <= RESIDUAL  # NaN, so False, after a sample has stopped
    first = torch.where(reached.any(0), reached.long().argmax(0) + 1, info.steps)
    each = (info.residual, first, reached[:EVALUATIONS].any(0))
    residual, count, good = (t.cpu().reshape(-1, len(corners)) for t in each)
    worst = residual.amax(0).tolist(), count.amax(0).tolist(), good.all(0).tolist()
    return [Tile(*record) for record in zip(corners, *worst, strict=True)]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles begin that cover a length evenly.

    >>> _starts(100, 64, 16), _starts(64, 64, 16), _starts(512, 64, 16)[-2:]
    ([0, 36], [0], [403, 448])
    """
    if length <= size:
        return [0]
    last = math.ceil((length - overlap) / (size - overlap)) - 1
    return [round(i * (length - size) / last) for i in range(last + 1)]


def _window(
    length: int, size: int, overlap: int, *, device: torch.device
) -> Float[Tensor, " size"]:
    """The weight in a tile: a sine's square at both ends, 1 between; 1 where there is one tile."""
    ends = torch.arange(size, device=device) + 0.5
    ends = torch.minimum(ends, ends.flip(0)) / (overlap if length > size and overlap else 1e-9)
    return torch.sin(torch.pi / 2 * ends.clamp(max=1)).square()


def _check(y: Tensor, tile: int, overlap: int, batch_size: int) -> None:
    n, h, w = y.shape
    if n < FEWEST:
        raise ValueError(f"{n} bands: at least {FEWEST} are needed")
    if min(h, w) < SMALLEST:
        raise ValueError(f"{h} x {w} pixels: at least {SMALLEST} x {SMALLEST} are needed")
    if not y.isfinite().all():
        raise ValueError("NaN or infinite values in the cube")
    if tile < SMALLEST or tile % MULTIPLE:
        raise ValueError(f"tile = {tile}: expected a multiple of {MULTIPLE}, {SMALLEST} or more")
    if not 0 <= overlap <= tile // 2:
        raise ValueError(f"overlap = {overlap}: expected 0 to {tile // 2}, half a tile")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: expected at least 1")
