"""Training patches: the same index always gives the same crop, flip and noise."""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from .download import available
from .images import bsds500, photographs

SCALES = (1.0, 0.9, 0.8, 0.7)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in the training sets of the denoising literature


def clean_patches(
    index: Int[Tensor, " b"], *, size: int, seed: int = 0, bundled: bool = False
) -> Float[Tensor, "b size size"]:
    """Gray training patches: a photograph, a scale, a crop and one of eight orientations each.

    They come from the 400 training photographs of BSDS500 where these are available, else from
    the twelve bundled ones (then `origin` says so: a network trained on them has seen the
    pictures of the chapters).

    Args:
        index: global sample numbers; each patch depends on its number and on `seed` alone, so any
            order of drawing, and any number of processes, gives the same data.
        size: pixels a side.
        seed: of the whole run.
        bundled: the twelve bundled photographs in any case (for quick trials).

    Returns:
        Patches in [0, 1].
    """
    pictures = _pictures(bundled or not available("BSDS500"))
    return torch.stack([_crop(pictures, random(int(i), seed), size) for i in index])


def random(index: int, seed: int, *, stream: int = 0) -> torch.Generator:
    """The random numbers of one sample: `stream` 0 draws its crop, others what is added to it."""
    return torch.Generator().manual_seed((seed * 7 + stream) * 1_000_003**2 + index)


def origin() -> str:
    """What `clean_patches` draws from."""
    if available("BSDS500"):
        return "400 photographs of BSDS500 (train and test)"
    return "the twelve bundled photographs"


def _crop(pictures: list[Tensor], g: torch.Generator, size: int) -> Tensor:
    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=g))

    picture = pictures[draw(len(pictures))]
    h, w = picture.shape
    top, left, way = draw(h - size + 1), draw(w - size + 1), draw(8)
    patch = picture[top : top + size, left : left + size].rot90(way % 4)
    return (patch.T if way > 3 else patch).float() / 255


@cache
def _pictures(bundled: bool) -> list[Tensor]:
    """Every photograph at four scales, as bytes: 180 MB for BSDS500."""
    if bundled:
        gray = list(photographs(size=256))
    else:
        luma = torch.tensor(LUMA)
        gray = [torch.einsum("c,chw->hw", luma, x) for s in ("train", "test") for x in bsds500(s)]
    pictures = []
    for x in gray:
        for scale in SCALES:
            y = x[None, None]
            if scale < 1:
                y = interpolate(y, scale_factor=scale, mode="bicubic", antialias=True)
            pictures.append((255 * y[0, 0]).round().clamp(0, 255).to(torch.uint8))
    return pictures
