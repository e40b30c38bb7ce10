"""Images to work on: bundled photographs, public sets, the reader's own files, noise and blur."""

from .degrade import add_noise, gaussian_kernel, levin_kernels
from .download import available, data_dir
from .files import read_image, write_image
from .images import PHOTOGRAPHS, bsd68, bsds500, photograph, photographs, set5

__all__ = [
    "PHOTOGRAPHS",
    "add_noise",
    "available",
    "bsd68",
    "bsds500",
    "data_dir",
    "gaussian_kernel",
    "levin_kernels",
    "photograph",
    "photographs",
    "read_image",
    "set5",
    "write_image",
]
