"""The detail enhancement of DECSC: a convolution of differences, and a gate."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv3d


class DifferenceConv(nn.Module):
    """The sum of five 3-D convolutions of 3 x 3 x 3, computed as one.

    Four of them have weights that sum to zero, so that they answer to differences only:

        center     c at the centre takes the sum of its 27 weights away
        vertical   w at the upper row, -w at the lower one, 9 weights
        horizontal w at the left column, -w at the right one, 9 weights
        spectral   w at the band before, -w at the band after, 9 weights
        plain      27 weights

    Args:
        maps: channels in and out.

    >>> DifferenceConv(4)(torch.rand(1, 4, 5, 6, 7)).shape
    torch.Size([1, 4, 5, 6, 7])

    Reference: Z. Chen, Z. He, Z.-M. Lu, DEA-Net, IEEE Trans. Image Processing, 2024, in 2-D.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        scale = 0.02 * (27 * maps) ** -0.5
        self.plain = nn.Parameter(scale * torch.randn(maps, maps, 3, 3, 3))
        self.center = nn.Parameter(scale * torch.randn(maps, maps, 3, 3, 3))
        self.sides = nn.Parameter(scale * torch.randn(3, maps, maps, 3, 3))
        self.bias = nn.Parameter(torch.zeros(maps))

    def kernel(self) -> Float[Tensor, "maps maps 3 3 3"]:
        """The one convolution; axes: out, in, band, row, column."""
        center = self.center.clone()
        center[..., 1, 1, 1] -= self.center.sum((2, 3, 4))
        spectral, vertical, horizontal = self.sides
        zero = torch.zeros_like(spectral)
        return (
            self.plain
            + center
            + torch.stack([spectral, zero, -spectral], 2)
            + torch.stack([vertical, zero, -vertical], 3)
            + torch.stack([horizontal, zero, -horizontal], 4)
        )

    def forward(self, x: Float[Tensor, "b maps n h w"]) -> Float[Tensor, "b maps n h w"]:
        """Zero beyond the border."""
        return conv3d(x, self.kernel(), self.bias, padding=1)


class DetailEnhancement(nn.Module):
    """r = h + relu(DifferenceConv(a(h))), times a gate in (0, 1): r sigmoid(G relu(F a(r))).

    a = asinh: codes in units of the noise range over several powers of ten, and what is learned
    for small ones is to be of use for large ones. At the start the gate is open, sigmoid(3) = 0.95.

    Args:
        maps: channels of h; F halves them, G doubles them again.

    >>> DetailEnhancement(4)(torch.zeros(1, 4, 3, 6, 6)).abs().max().item()
    0.0
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.differences = DifferenceConv(maps)
        self.squeeze = nn.Conv3d(maps, maps // 2, 3, padding=1)
        self.spread = nn.Conv3d(maps // 2, maps, 3, padding=1)
        nn.init.constant_(self.spread.bias, 3.0)

    def forward(self, h: Float[Tensor, "b maps n h w"]) -> Float[Tensor, "b maps n h w"]:
        """r times the gate."""
        r = h + self.differences(h.asinh()).relu()
        return r * self.spread(self.squeeze(r.asinh()).relu()).sigmoid()
