"""Glow on patches, with pixels squeezed into channels (chapter 05_invertible_networks)."""

from functools import partial

from . import glow

PROFILES = glow.PROFILES
recipe = partial(glow.recipe, split="squeeze")
