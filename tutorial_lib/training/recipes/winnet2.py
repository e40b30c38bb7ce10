"""WINNet, two scales, blind: noise levels from 0 to 55 (chapter 07_winnet)."""

from functools import partial

from . import winnet

PROFILES = {
    "smoke": winnet.PROFILES["smoke"] | {"lr": 3e-4, "start": "winnet"},
    "cpu": winnet.PROFILES["cpu"] | {"steps": 2_500, "lr": 3e-4, "start": "winnet"},
    "full": winnet.PROFILES["full"] | {"lr": 1e-3, "start": None},
}
recipe = partial(winnet.recipe, levels=2)
denoise = partial(winnet.denoise, name="winnet2", levels=2)
