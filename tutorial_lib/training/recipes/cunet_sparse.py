"""CU-Net for depth with positive thresholds and an l1 term on its codes (chapter 14_cunet)."""

from functools import partial

from . import cunet

SCALE = cunet.SCALE
L1 = 20.0  # weight of the mean magnitudes of the codes
PROFILES = cunet.profiles(1_200, l1=L1, positive=True, start="cunet_depth")
recipe = partial(cunet.recipe, kind="depth")
trained = partial(cunet.trained, "cunet_sparse", positive=True)
super_resolve = partial(cunet.super_resolve, name="cunet_sparse", positive=True)
