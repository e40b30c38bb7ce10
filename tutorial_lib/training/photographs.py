"""Methods for photographs, and their use on the reader's own files."""

import math
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib.data import check_pair, files, read_gray
from tutorial_lib.super_resolution import upscale

from . import recipes
from .cubes import wavelet


def denoise_photograph(
    x: Float[Tensor, "*channels h w"], *, sigma: float | None = None, method: str = "wavelet"
) -> tuple[Float[Tensor, "*channels h w"], float]:
    """Denoising of a gray (h, w) or colour (3, h, w) photograph in [0, 1].

    Colours are first rotated by the orthonormal DCT of length 3 into one light and two colour
    channels: white noise keeps its level, and the picture, whose channels are alike, gathers in
    the first (wavelets gain 1.4 to 1.9 dB over red, green and blue one by one). The level is
    estimated in each rotated channel, because cameras and JPEG leave less noise in the colours.

    Args:
        x: the noisy photograph.
        sigma: of its noise, in the same unit; None: estimated.
        method: "wavelet", or a trained denoiser of gray images.

    Returns:
        The denoised photograph, and the noise level used (the root mean square over channels).
    """
    one = wavelet if method == "wavelet" else recipes.find(method).denoise
    n = torch.arange(3, dtype=x.dtype)
    rotation = torch.cos(math.pi * n[:, None] * (n + 0.5) / 3) * (2 / 3) ** 0.5
    rotation[0] /= 2**0.5
    colour = x.ndim == 3
    z = torch.einsum("ij,jhw->ihw", rotation, x) if colour else x[None]
    with torch.no_grad():  # channel by channel: a third of the memory
        channels, levels = zip(*(one(c, sigma) for c in z), strict=True)
    z = torch.stack(channels)
    cleaned = torch.einsum("ij,ihw->jhw", rotation, z) if colour else z[0]
    return cleaned, math.sqrt(math.fsum(level**2 for level in levels) / len(levels))


def denoise_file(
    source: Path, target: Path, array: np.ndarray, *, method: str, sigma: float | None
) -> str:
    """Denoise a photograph in a file, and say in a line what was done.

    Args:
        source, target: where the photograph is from, and where it goes; 16 bits stay 16 bits
            where the file can hold them.
        array: what `files.read_array` finds in source.
        method, sigma: of `denoise_photograph`.

    Raises:
        ValueError: what is no photograph, or a target of an unknown kind.
    """
    files.check_output(target)
    x = files.as_image(array, source=source)
    if x.ndim == 3 and x.shape[0] != 3:
        raise ValueError(
            f"{source}: expected gray (h, w) or colour (3, h, w), got {tuple(x.shape)}"
        )
    begin = time.perf_counter()
    cleaned, used = denoise_photograph(x, sigma=sigma, method=method)
    seconds = time.perf_counter() - begin
    files.write_image(target, cleaned, bits=_bits(array, target))
    return (
        f"{target}: {x.shape[-1]} x {x.shape[-2]} {'colour' if x.ndim == 3 else 'gray'}, {method}, "
        f"sigma {255 * used:.2f}/255 ({'estimated' if sigma is None else 'given'}), {seconds:.2f} s"
    )


def super_resolve_file(source: Path, guide: Path, target: Path, *, method: str) -> str:
    """Enlarge a small image by a photograph of the same scene, and say in a line what was done.

    Args:
        source, guide, target: the small image, the photograph, and where the result goes.
        method: a network with `super_resolve`.

    Raises:
        ValueError: a network without a guide, sizes that do not fit, a target that is an input.
            FileNotFoundError: no such file.
    """
    module = recipes.find(method)
    if not hasattr(module, "super_resolve"):
        known = [n for n in recipes.names() if hasattr(recipes.find(n), "super_resolve")]
        raise ValueError(f"{method} takes no guide: allowed are {', '.join(known)}")
    for path in (source, guide):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        if target.exists() and target.samefile(path):
            raise ValueError(f"{target}: OUT is one of the inputs; name another file")
    files.check_output(target)
    small, y = read_gray(source), read_gray(guide)
    check_pair(y, small, scale=module.SCALE, source=f"{source} and {guide}")
    # Depth in 16 bits may use a small part of them: the networks know maps that fill [0, 1].
    array = files.read_array(source)
    deep = array.dtype.itemsize > 1
    low = small.min() if deep else torch.tensor(0.0)
    span = (small.max() - low).clamp(min=1e-6) if deep else torch.tensor(1.0)
    begin = time.perf_counter()
    with torch.no_grad():
        x = upscale((small - low) / span, scale=module.SCALE)
        result = low + span * module.super_resolve(x, y)
    seconds = time.perf_counter() - begin
    files.write_image(target, result, bits=_bits(array, target))
    return (
        f"{target}: {small.shape[1]} x {small.shape[0]} to {x.shape[1]} x {x.shape[0]}, {method}, "
        f"{seconds:.2f} s"
    )


def _bits(array: np.ndarray, target: Path) -> int:
    """Bits of a sample to be written: 16 if there were more than 8 and the file can hold them."""
    return 16 if array.dtype.itemsize > 1 and target.suffix.lower() not in (".jpg", ".jpeg") else 8
