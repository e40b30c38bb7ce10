"""Photographs: twelve that come with scikit-image, and the public sets BSDS500, BSD68 and Set5."""

import io
from pathlib import PurePosixPath

import numpy as np
import skimage.color
import skimage.data
import skimage.transform
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .download import fetch, files_of

# All come in scikit-image's wheel: nothing is downloaded. `camera` is not MIT's "Cameraman".
PHOTOGRAPHS = {
    "camera": "a photographer and his camera, gray 512 x 512; Lav Varshney, CC0",
    "astronaut": "Eileen Collins in front of a flag, colour 512 x 512; NASA, public domain",
    "chelsea": "Chelsea the cat, colour 300 x 451; Stefan van der Walt, CC0",
    "coffee": "a cup of coffee, colour 400 x 600; Rachel Michetti, CC0",
    "rocket": "the launch of DSCOVR, colour 427 x 640; SpaceX, public domain",
    "motorcycle": "a motorcycle in a garage, colour 500 x 741; Middlebury stereo 2014, left view",
    "coins": "Greek coins from Pompeii, gray 303 x 384; Brooklyn Museum",
    "moon": "the surface of the Moon, low contrast, gray 512 x 512; scikit-image",
    "clock": "a wall clock, blurred by motion, gray 300 x 400; Stefan van der Walt, public domain",
    "brick": "a brick wall, gray 512 x 512; CC0Textures, CC0",
    "grass": "grass, gray 512 x 512; linolafett, CC0",
    "gravel": "gravel, gray 512 x 512; CC0Textures, CC0",
}


def photograph(
    name: str = "camera", *, size: int | None = 256, gray: bool = True
) -> Float[Tensor, "..."]:
    """One of the twelve `PHOTOGRAPHS`, that need no download.

    Args:
        name: a key of `PHOTOGRAPHS`.
        size: crop the centre square and resize it, with anti-aliasing, to size x size pixels;
            None keeps the picture as it is.
        gray: the luminance instead of the three colours.

    Returns:
        float32 in [0, 1], (h, w), or (3, h, w) for `gray=False`.

    Raises:
        ValueError: unknown names, a size below one, colours of a gray picture.

    >>> photograph("astronaut", size=64, gray=False).shape
    torch.Size([3, 64, 64])
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"unknown photograph {name!r}: known are {', '.join(PHOTOGRAPHS)}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 or None, got {size}")
    if name == "motorcycle":
        picture = skimage.data.stereo_motorcycle()[0] / 255.0
    else:
        picture = getattr(skimage.data, name)() / 255.0  # (h, w) or (h, w, 3)
    if gray and picture.ndim == 3:
        picture = skimage.color.rgb2gray(picture)
    if not gray and picture.ndim == 2:
        raise ValueError(f"{name!r} is a gray picture: it has no colours to return")
    if size is not None:
        h, w = picture.shape[:2]
        n = min(h, w)
        top, left = (h - n) // 2, (w - n) // 2
        square = picture[top : top + n, left : left + n]
        picture = skimage.transform.resize(square, (size, size), anti_aliasing=True)
    return _tensor(picture)


def photographs(*, size: int = 256) -> Float[Tensor, "12 size size"]:
    """The twelve `PHOTOGRAPHS` as one gray batch, in their order.

    Args:
        size: pixels a side, as in `photograph`.

    Raises:
        ValueError: a size below one.
    """
    return torch.stack([photograph(name, size=size) for name in PHOTOGRAPHS])


def bsds500(split: str) -> list[Tensor]:
    """The Berkeley segmentation photographs, the usual 400 of them to train on.

    Args:
        split: "train" or "test", 200 photographs each.

    Returns:
        Float32 tensors in [0, 1], (3, 321, 481) or (3, 481, 321), in the order of their names.

    Raises:
        ValueError: another split: "val" holds the 68 test images of `bsd68`; and damaged files.
        ConnectionError: the set is not on disk and could not be downloaded.

    Reference: P. Arbelaez, M. Maire, C. Fowlkes, J. Malik, Contour detection and hierarchical image
    segmentation, IEEE TPAMI, 2011.
    """
    if split == "val":
        raise ValueError(
            "split 'val' is left out: the 68 images of bsd68 lie in it, and a network trained on "
            "it would be tested on what it has seen. Allowed are 'train' and 'test'"
        )
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: allowed are 'train' and 'test'")
    return [_decode(b) for b in fetch("BSDS500", files_of("BSDS500", within=f"{split}/"))]


def bsd68() -> list[Tensor]:
    """The 68 gray test images of the denoising literature, in the order test001 ... test068.

    Returns:
        Float32 tensors in [0, 1], (321, 481) or (481, 321).

    Raises:
        ValueError: a file is damaged. ConnectionError: not on disk, and not to be downloaded.

    Reference: S. Roth and M. J. Black, Fields of experts, CVPR 2005.
    """
    return [_decode(b) for b in fetch("BSD68", files_of("BSD68"))]


def set5() -> dict[str, Tensor]:
    """The five colour test images of the super-resolution literature.

    Returns:
        {"baby": ..., "bird": ..., "butterfly": ..., "head": ..., "woman": ...}, float32 tensors
        in [0, 1], (3, h, w).

    Raises:
        ValueError: a file is damaged. ConnectionError: not on disk, and not to be downloaded.

    Reference: M. Bevilacqua, A. Roumy, C. Guillemot, M.-L. Alberi-Morel, Low-complexity
    single-image super-resolution, BMVC 2012.
    """
    keys = files_of("Set5")
    names = [PurePosixPath(key).stem.removesuffix("_GT") for key in keys]
    return {name: _decode(b) for name, b in zip(names, fetch("Set5", keys), strict=True)}


def _decode(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return _tensor(np.asarray(image) / 255.0)


def _tensor(picture: np.ndarray) -> Tensor:
    """(h, w) or (h, w, 3) float64 -> (h, w) or (3, h, w) float32."""
    x = torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))
    return x if x.ndim == 2 else x.movedim(-1, 0).contiguous()
