"""Images to work on: bundled photographs, public sets, the reader's own files, noise and blur."""

from .degrade import add_noise, gaussian_kernel, levin_kernels
from .download import available, data_dir
from .files import read_image, write_image
from .guided import (
    Pair,
    bicubic,
    check_pair,
    guided_pairs,
    guided_patches,
    luma,
    motorcycle,
    on_disk,
    pairs,
    read_gray,
)
from .hyperspectral import cave, cave_scenes
from .images import PHOTOGRAPHS, bsd68, bsds500, photograph, photographs, set5
from .sensing import gaussian_matrix, observe, sparse_codes

__all__ = [
    "PHOTOGRAPHS",
    "Pair",
    "add_noise",
    "available",
    "bicubic",
    "bsd68",
    "bsds500",
    "cave",
    "cave_scenes",
    "check_pair",
    "data_dir",
    "gaussian_kernel",
    "gaussian_matrix",
    "guided_pairs",
    "guided_patches",
    "levin_kernels",
    "luma",
    "motorcycle",
    "observe",
    "on_disk",
    "pairs",
    "photograph",
    "photographs",
    "read_gray",
    "read_image",
    "set5",
    "sparse_codes",
    "write_image",
]
