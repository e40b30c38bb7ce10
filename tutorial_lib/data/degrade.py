"""What spoils a photograph: noise and blur."""

import hashlib
import io
import math

import h5py
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .download import fetch, files_of, locate


def add_noise(x: Float[Tensor, "..."], sigma: float, *, seed: int = 0) -> Float[Tensor, "..."]:
    """x + sigma n, with n white Gaussian of variance one; not clipped, as in the literature.

    Args:
        x: any shape.
        sigma: standard deviation in the unit of x (25/255 is usual for images in [0, 1]).
        seed: the same seed gives the same noise on every device and in every precision.

    Raises:
        ValueError: an integer tensor, NaN, or a negative or infinite sigma.

    >>> add_noise(torch.zeros(10_000), 0.1).std().round(decimals=2)
    tensor(0.1000)
    """
    if not x.is_floating_point():
        raise ValueError(f"expected a floating point tensor, got {x.dtype}")
    if x.isnan().any():
        raise ValueError(f"NaN in a tensor of shape {tuple(x.shape)}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be at least 0 and finite, got {sigma}")
    noise = np.random.default_rng(seed).standard_normal(tuple(x.shape))
    return x + sigma * torch.as_tensor(noise).to(x)


def gaussian_kernel(sigma: float, *, size: int | None = None) -> Float[Tensor, "size size"]:
    """Gaussian blur kernel exp(-(i^2 + j^2) / (2 sigma^2)), scaled to sum to one, float64.

    Args:
        sigma: standard deviation in pixels.
        size: odd number of pixels a side; None: out to three standard deviations.

    Raises:
        ValueError: sigma that is not positive, a size that is not odd and positive.

    >>> gaussian_kernel(1.6).shape
    torch.Size([11, 11])
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be positive and finite, got {sigma}")
    size = 2 * math.ceil(3 * sigma) + 1 if size is None else size
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, got {size}")
    i = torch.arange(size, dtype=torch.float64) - size // 2
    g = torch.exp(-(i**2) / (2 * sigma**2))
    return torch.outer(g, g) / g.sum() ** 2


_LEVIN_SIZES = [19, 17, 15, 27, 13, 21, 23, 23]
# Of the values in millionths, kernel after kernel: whatever file format they came in.
_LEVIN_SHA256 = "252ecbbbb9f9a6a8249b7a1a6dd6745580b8abb18f1c85d49959addbe757b30e"


def levin_kernels() -> list[Float[Tensor, "size size"]]:
    """The eight motion blurs that Levin et al. recorded with a shaken camera.

    Returns:
        Eight float64 tensors of 13 to 27 pixels a side, each summing to one.

    Raises:
        ValueError: the file holds something else. ConnectionError: not on disk, no download.

    Reference: A. Levin, Y. Weiss, F. Durand, W. T. Freeman, Understanding and evaluating blind
    deconvolution algorithms, CVPR 2009.
    """
    keys = files_of("Levin")
    (content,) = fetch("Levin", keys)
    path = locate("Levin", keys[0])
    try:
        kernels = _read_kernels(content)
    except Exception as error:  # decoders fail in every way that a damaged file can
        raise ValueError(f"{path}: cannot be read ({error or type(error).__name__})") from error
    sizes = [k.shape for k in kernels]
    if sizes != [(n, n) for n in _LEVIN_SIZES]:
        raise ValueError(f"{path}: expected kernels of sizes {_LEVIN_SIZES}, got {sizes}")
    sums = [round(float(k.sum()), 6) for k in kernels]
    if sums != [1.0] * 8:
        raise ValueError(f"{path}: expected kernels that sum to 1, got sums {sums}")
    millionths = b"".join(np.round(1e6 * k).astype("<i4").tobytes() for k in kernels)
    came = hashlib.sha256(millionths).hexdigest()
    if came != _LEVIN_SHA256:
        raise ValueError(
            f"{path}: not the kernels of 2009: expected sha256 {_LEVIN_SHA256} of the values in "
            f"millionths, got {came}. Delete it to download it again."
        )
    return [torch.from_numpy(np.ascontiguousarray(k)) for k in kernels]


def _read_kernels(content: bytes) -> list[np.ndarray]:
    """From `kernels.npz` (kernel_1, ...), or from the MATLAB 7.3 cell array of Levin09.mat."""
    if content.startswith(b"PK"):
        with np.load(io.BytesIO(content)) as arrays:
            return [arrays[f"kernel_{i}"] for i in range(1, 9)]
    with h5py.File(io.BytesIO(content)) as file:  # HDF5 lists MATLAB's axes in reverse
        return [file[cell][()].T for cell in file["kernels"][()].ravel()]
