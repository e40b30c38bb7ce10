"""Images to work on: bundled photographs, public sets, the reader's own files, noise and blur."""

from .degrade import add_noise, gaussian_kernel, levin_kernels
from .download import available, data_dir
from .files import read_image, write_image
from .images import PHOTOGRAPHS, bsd68, bsds500, photograph, photographs, set5
from .sensing import gaussian_matrix, observe, sparse_codes

__all__ = [
    "PHOTOGRAPHS",
    "add_noise",
    "available",
    "bsd68",
    "bsds500",
    "data_dir",
    "gaussian_kernel",
    "gaussian_matrix",
    "levin_kernels",
    "observe",
    "photograph",
    "photographs",
    "read_image",
    "set5",
    "sparse_codes",
    "write_image",
]
