"""A cube in coordinates in which its noise is white: eigenimages, of level 1 each."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from .damaged_cubes import restore_damaged
from .low_rank import signal_subspace

REACH = 6  # pixels on each side that the low-pass looks at
WIDTH = 1.5  # of its Gaussian


class Whitened(NamedTuple):
    """A noisy cube as `spectra` times the images `base` + `detail`.

    Args:
        detail: (k, h, w), with Gaussian noise of level 1 in all samples that were observed.
        base: (k, h, w), smooth and without noise.
        spectra: (bands, k), what one unit of each image is in the cube.
        first: (k, h, w), `detail` as the wavelets of `restore_damaged` leave it.
    """

    detail: Float[Tensor, "k h w"]
    base: Float[Tensor, "k h w"]
    spectra: Float[Tensor, "bands k"]
    first: Float[Tensor, "k h w"]

    def cube(self, detail: Float[Tensor, "k h w"]) -> Float[Tensor, "bands h w"]:
        """The cube with these details."""
        return torch.einsum("bk,khw->bhw", self.spectra, self.base + detail)


def whiten(y: Float[Tensor, "bands h w"], *, count: int = 16) -> Whitened:
    """Eigenimages of a noisy cube whose damaged samples are repaired.

    With the noise levels sigma, the stripes, the stuck samples and the estimate x of
    `restore_damaged`: stripes are subtracted, stuck samples taken from x, and of the result y' the
    images are E = U^T (y' / sigma), U its first `count` left singular vectors. Where nothing was
    damaged their noise is white and of level 1, whatever the levels of the bands were. `base` is a
    Gaussian low-pass of U^T (x / sigma), and `detail` is E minus that.

    Args:
        y: as in `restore_damaged`.
        count: k; a cube with fewer bands gets images that are zero.

    Raises:
        ValueError: as `restore_damaged`; a count below 1.

    >>> w = whiten(torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0)), count=6)
    >>> w.detail.shape, w.cube(w.detail).shape
    (torch.Size([6, 16, 16]), torch.Size([4, 16, 16]))
    """
    if count < 1:
        raise ValueError(f"count = {count}: at least 1")
    found = restore_damaged(y)
    sigma = found.sigma[:, None, None]
    repaired = torch.where(found.stuck, found.cube, y - found.offsets[:, None]) / sigma
    U = signal_subspace(repaired.flatten(1), rank=min(count, len(y)))
    U = pad(U, (0, count - U.shape[1]))
    E, V = (torch.einsum("bk,bhw->khw", U, a) for a in (repaired, found.cube / sigma))
    base = _low_pass(V)
    return Whitened(E - base, base, found.sigma[:, None] * U, V - base)


def _low_pass(x: Tensor) -> Tensor:
    place = torch.arange(-REACH, REACH + 1).to(x)
    taps = torch.exp(-(place**2) / (2 * WIDTH**2))
    taps = (taps / taps.sum())[None, None, None]
    x = pad(x[:, None], (REACH,) * 4, mode="reflect")
    return conv2d(conv2d(x, taps), taps.mT)[:, 0]
