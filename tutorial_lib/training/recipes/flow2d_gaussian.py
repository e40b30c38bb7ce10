"""RealNVP on two correlated normal variables (chapter 05_invertible_networks)."""

from functools import partial

from . import flow2d

PROFILES = flow2d.PROFILES
recipe = partial(flow2d.recipe, density="gaussian")
