"""A learned threshold for each map that is lower where there is more than noise."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus

AREA = 7  # positions a side whose energy decides


class LocalThreshold(nn.Module):
    """T = T_0 exp(-M g) of each map at each position, from the code v = E y before any iteration.

    With noise of level ||E_j|| in map j, e is the mean of (v / ||E_j||)^2 over 7 x 7 positions
    around, one map at a time, and g = log(1 + max(e - 1, 0)): zero where there is only noise. At
    the start M = 1.2 I, and T = T_0 / max(e, 1)^1.2. (BayesShrink, for noise of level one, has
    1 / sqrt(e - 1) with e from a whole band.) Learning lets maps look at
    each other's energies.

    Args:
        start: T_0 of each map; learned, kept positive by `softplus`.
        maps: how many; M is a learned matrix of maps x maps.
        local: False: without M, T = T_0 everywhere.

    >>> threshold = LocalThreshold(0.5, 2)
    >>> T = threshold(torch.tensor([0.0, 5.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8), torch.eye(2))
    >>> T[0, :, 0, 0]
    tensor([0.5000, 0.0105], grad_fn=<SelectBackward0>)

    Reference: S. G. Chang, B. Yu, M. Vetterli, Spatially adaptive wavelet thresholding with context
    modeling for image denoising, IEEE Trans. Image Processing 9, 2000.
    """

    def __init__(self, start: float, maps: int, *, local: bool = True) -> None:
        super().__init__()
        self.top = nn.Parameter(torch.full((maps,), math.log(math.expm1(start))))
        self.mix = nn.Parameter(1.2 * torch.eye(maps)) if local else None

    def forward(
        self, v: Float[Tensor, "b maps *bands h w"], E: Float[Tensor, "maps ..."]
    ) -> Float[Tensor, "b maps *bands h w"]:
        """The thresholds of v, which the encoder E gave."""
        one = (-1, *[1] * (v.ndim - 2))
        top = softplus(self.top).view(one)
        if self.mix is None:
            return top.expand_as(v)
        e = v.square() / E.flatten(1).square().sum(1).view(one)
        e = avg_pool2d(e.flatten(0, -4), AREA, 1, AREA // 2, count_include_pad=False).view(v.shape)
        g = (e - 1).relu().log1p()
        return top * torch.exp(-torch.einsum("ij,bj...->bi...", self.mix, g))
