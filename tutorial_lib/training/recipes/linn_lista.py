"""DnINN with LISTA on the details, at noise level 25 (chapter 06_linn)."""

from functools import partial

from . import linn_soft

PROFILES = linn_soft.PROFILES
recipe = partial(linn_soft.recipe, shrinkage="lista")
denoise = partial(linn_soft.denoise, shrinkage="lista")
