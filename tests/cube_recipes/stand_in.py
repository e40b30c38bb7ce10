"""A network for whitened cubes that smooths: stands in for one of the package in tests."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from tutorial_lib.fixed_points import Info, fixed_point

LOUD = 3.0  # median size of the samples of a tile; of noise of level 1 it is 0.67


class Smooth(nn.Module):
    """z = f(z) at the 3 x 3 mean of each image; a tile with much more noise takes too long."""

    bands = 8

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def restore(self, Y: Tensor) -> tuple[Tensor, Info]:
        x = avg_pool2d(self.gain * Y, 3, 1, 1, count_include_pad=False)
        loud = Y.abs().flatten(1).median(1).values > LOUD
        slow = torch.where(loud, 0.99, 0.5)[:, None, None, None]
        return fixed_point(
            lambda z: x + slow * (z - x), 0.5 * x, method="picard", rtol=1e-4, max_steps=60
        )


def trained() -> Smooth:
    return Smooth().eval()
