"""Where the filters of DECSC begin: wavelet bases, as convolutions of the phases of an image.

Codes live on every second pixel and filters have 6 x 6 pixels; each is a 3 x 3 convolution of the
four phases (even and odd rows and columns) of `torch.nn.functional.pixel_unshuffle`.
"""

import pywt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, pixel_unshuffle

STRIDE = 2  # pixels from one position of the codes to the next
TAPS = 3  # positions that a filter covers: STRIDE x TAPS pixels a side


def shared_bank(bands: int, maps: int) -> Float[Tensor, "maps channels taps taps"]:
    """K at the start: the four filters of db3 in one band after the other, ||K|| = 1.

    An orthonormal basis for maps = 4 bands; with fewer maps, the last bands have none. A map
    belongs to one band at first: training makes the others look at it.
    """
    if maps > 4 * bands:
        raise ValueError(f"maps = {maps}: at most four times the {bands} bands")
    atoms = torch.einsum("ib,jhw->ijbhw", torch.eye(bands), wavelet("db3")).flatten(0, 1)
    return pixel_unshuffle(atoms[:maps], STRIDE)


def unshared_bank(volumes: int) -> Float[Tensor, "volumes phases 3 taps taps"]:
    """D at the start: bands apart, up to four wavelet bases, a tight frame with ||D|| = 1."""
    if volumes not in (4, 8, 12, 16):
        raise ValueError(f"volumes = {volumes}: 4, 8, 12 or 16")
    bases = [wavelet("db3"), wavelet("db2"), wavelet("db1"), wavelet("db3").flip(1, 2)]
    atoms = torch.zeros(volumes, TAPS, STRIDE * TAPS, STRIDE * TAPS)
    atoms[:, TAPS // 2] = torch.cat(bases)[:volumes] / (volumes / 4) ** 0.5
    return pixel_unshuffle(atoms, STRIDE).unflatten(1, (TAPS, -1)).transpose(1, 2)


def wavelet(name: str) -> Float[Tensor, "4 6 6"]:
    """One level of a 2-D wavelet basis: orthonormal when moved by two pixels."""
    low, high = (torch.tensor(f) for f in pywt.Wavelet(name).filter_bank[:2])
    before = (6 - len(low)) // 4 * 2
    low, high = (pad(f, (before, 6 - len(f) - before)) for f in (low, high))
    return torch.stack([torch.outer(u, v) for u in (low, high) for v in (low, high)])
