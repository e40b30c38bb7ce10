"""Glow on patches, with orthonormal Haar bands as channels (chapter 05_invertible_networks)."""

from functools import partial

from . import glow

PROFILES = glow.PROFILES
recipe = partial(glow.recipe, split="haar")
