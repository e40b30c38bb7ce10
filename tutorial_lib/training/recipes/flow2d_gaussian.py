"""RealNVP on two correlated normal variables (chapter 05_invertible_networks)."""

from functools import partial

from . import flow2d

PROFILES = flow2d.PROFILES | {"cpu": flow2d.PROFILES["cpu"] | {"steps": 1000}}  # one mode
recipe = partial(flow2d.recipe, density="gaussian")
