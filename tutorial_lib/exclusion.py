"""Exclusion: two pictures should have no edge in common. The Haar frame, and the proximal map."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def haar_frame(y: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 4 h w"]:
    """The undecimated Haar transform of one level, scaled to a Parseval frame.

    Band 0 is the mean of the pixels [i, j], [i, j+1], [i+1, j], [i+1, j+1]; bands 1, 2, 3 are their
    vertical, horizontal and diagonal differences, with signs instead of ones and the same 1/4. The
    border is circular, so that W^T W = I everywhere: `haar_synthesis` is adjoint and inverse.

    >>> y = torch.rand(5, 7)
    >>> torch.allclose(haar_synthesis(haar_frame(y)), y, atol=1e-6)
    True
    """
    low, high = _pair(y, -2)
    return torch.stack([b for part in (low, high) for b in _pair(part, -1)], -3)[
        ..., [0, 2, 1, 3], :, :
    ]


def haar_synthesis(bands: Float[Tensor, "*batch 4 h w"]) -> Float[Tensor, "*batch h w"]:
    """The adjoint of `haar_frame`, which is also its inverse."""
    ll, lh, hl, hh = bands.unbind(-3)
    return _unpair(_unpair(ll, hl, -1), _unpair(lh, hh, -1), -2)


def haar_details(y: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """W y: the three high-pass bands of `haar_frame`, zero where a window wraps around the border.

    The differences of 2 x 2 pixels, vertical, horizontal and diagonal, times 1/4. No constant is
    seen, and no seam between the last row and the first. ||W|| <= 1.

    >>> haar_details(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))[:, 0, 0]
    tensor([0.5000, 0.0000, 0.0000])
    """
    return _inside(haar_frame(y)[..., 1:, :, :])


def haar_details_adjoint(w: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch h w"]:
    """W^T w: <W y, w> = <y, W^T w>. Not an inverse: the low-pass band is missing."""
    w = _inside(w)
    return haar_synthesis(torch.cat([torch.zeros_like(w[..., :1, :, :]), w], -3))


def _pair(y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Half the sum and half the difference of each sample and the next one."""
    following = y.roll(-1, dim)
    return (y + following) / 2, (y - following) / 2


def _unpair(low: Tensor, high: Tensor, dim: int) -> Tensor:
    """The adjoint of `_pair`."""
    return (low + high + (low - high).roll(1, dim)) / 2


def _inside(w: Tensor) -> Tensor:
    """Zero in the last row and column."""
    return F.pad(w[..., :-1, :-1], (0, 1, 0, 1))


def prox_exclusion(
    v: Float[Tensor, "*batch h w"],
    weight: Float[Tensor, "*batch 3 h w"],
    *,
    dual: Float[Tensor, "*batch 3 h w"] | None = None,
    steps: int = 100,
) -> tuple[Float[Tensor, "*batch h w"], Float[Tensor, "*batch 3 h w"], Float[Tensor, "*batch"]]:
    """argmin_y 1/2 ||y - v||^2 + ||weight . W y||_1, W = `haar_details`, by FISTA on its dual.

    y = v - W^T u, where u minimises 1/2 ||v - W^T u||^2 over the box |u| <= weight. W is not
    orthonormal, so that W^T S(W v) is not the answer.

    Args:
        v: any batch of images.
        weight: nonnegative; for the exclusion, step * mu * |W of the other layer|.
        dual: u to begin with, zero by default.
        steps: of FISTA, each of step 1, since ||W|| <= 1.

    Returns:
        y, u, and the duality gap: y is worse than the best by at most so much.

    Raises:
        ValueError: a negative or NaN weight.

    Reference: A. Chambolle, An algorithm for total variation minimization and applications, J.
    Math. Imaging Vision 20, 2004.

    >>> y, _, gap = prox_exclusion(torch.rand(4, 4), torch.ones(3, 4, 4), steps=200)
    >>> bool((y - y.mean()).abs().max() < 0.01)
    True
    """
    if not bool((weight >= 0).all()):
        raise ValueError(f"weights must be at least 0, got {float(weight.min()):g}")
    u = torch.zeros_like(weight) if dual is None else dual.clamp(-weight, weight)
    ahead, t = u, 1.0
    for _ in range(steps):
        old, u = u, (ahead + haar_details(v - haar_details_adjoint(ahead))).clamp(-weight, weight)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead, t = u + (t - 1) / following * (u - old), following
    y = v - haar_details_adjoint(u)
    details = haar_details(y)
    return y, u, (weight * details.abs() - u * details).sum((-3, -2, -1))
