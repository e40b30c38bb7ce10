"""CU-Net for near-infrared images, guided by a colour photograph, x 4 (chapter 14_cunet)."""

from functools import partial

from . import cunet

SCALE = cunet.SCALE
PROFILES = cunet.profiles(2_500, start="cunet_depth")
recipe = partial(cunet.recipe, kind="nir")
trained = partial(cunet.trained, "cunet_nir")
super_resolve = partial(cunet.super_resolve, name="cunet_nir")
