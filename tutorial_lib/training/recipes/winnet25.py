"""WINNet, one scale, for noise of level 25 alone (chapter 07_winnet)."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ..evaluation import by_tiles
from . import winnet

SIGMA = 25 / 255
PROFILES = winnet.PROFILES
recipe = partial(winnet.recipe, sigma=SIGMA)


@torch.no_grad()
def denoise(
    y: Float[Tensor, "h w"], sigma: float | None = None
) -> tuple[Float[Tensor, "h w"], float]:
    """Denoise a gray image of any size, as if its noise level were 25/255 where it is None."""
    level = SIGMA if sigma is None else sigma
    return by_tiles(lambda tile: winnet.trained("winnet25")(tile, level), y), level
