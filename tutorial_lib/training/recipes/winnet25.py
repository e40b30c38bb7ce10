"""WINNet, one scale, for noise of level 25 alone (chapter 07_winnet)."""

from functools import partial

from jaxtyping import Float
from torch import Tensor

from . import winnet

SIGMA = 25 / 255
PROFILES = {
    "smoke": winnet.PROFILES["smoke"] | {"lr": 1e-4, "start": "winnet"},
    "cpu": winnet.PROFILES["cpu"] | {"steps": 1_500, "lr": 1e-4, "start": "winnet"},
    "full": winnet.PROFILES["full"] | {"lr": 1e-3, "start": None},
}
recipe = partial(winnet.recipe, sigma=SIGMA)


def denoise(
    y: Float[Tensor, "h w"], sigma: float | None = None
) -> tuple[Float[Tensor, "h w"], float]:
    """Denoise a gray image of any size, as if its noise level were 25/255 where it is None."""
    return winnet.denoise(y, SIGMA if sigma is None else sigma, name="winnet25")
