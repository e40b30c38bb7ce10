"""Images to work on: bundled photographs, public sets, the reader's own files, noise and blur."""

from .cube_noise import CASES, NoisyCube, add_cube_noise
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
from .hyperspectral import cave, cave_scenes, colour_cube, false_colour, read_cube, real_cube
from .images import PHOTOGRAPHS, bsd68, bsds500, photograph, photographs, set5
from .invented_cubes import invent_cube
from .sensing import gaussian_matrix, observe, sparse_codes
from .xray import Mixture, gray_response, mixture, paintings_on_disk, xray_pairs

__all__ = [
    "CASES",
    "NoisyCube",
    "PHOTOGRAPHS",
    "Mixture",
    "Pair",
    "add_cube_noise",
    "add_noise",
    "available",
    "bicubic",
    "bsd68",
    "bsds500",
    "cave",
    "cave_scenes",
    "colour_cube",
    "check_pair",
    "data_dir",
    "false_colour",
    "gaussian_kernel",
    "gaussian_matrix",
    "gray_response",
    "guided_pairs",
    "guided_patches",
    "invent_cube",
    "levin_kernels",
    "luma",
    "mixture",
    "motorcycle",
    "observe",
    "on_disk",
    "paintings_on_disk",
    "pairs",
    "photograph",
    "photographs",
    "read_cube",
    "read_gray",
    "read_image",
    "real_cube",
    "set5",
    "sparse_codes",
    "write_image",
    "xray_pairs",
]
