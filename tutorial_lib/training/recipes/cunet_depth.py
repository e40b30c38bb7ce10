"""CU-Net for depth maps, guided by a photograph, x 4 (chapter 14_cunet)."""

from functools import partial

from . import cunet

SCALE = cunet.SCALE
PROFILES = cunet.profiles(6_500)
recipe = partial(cunet.recipe, kind="depth")
trained = partial(cunet.trained, "cunet_depth")
super_resolve = partial(cunet.super_resolve, name="cunet_depth")
