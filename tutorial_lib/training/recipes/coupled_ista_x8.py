"""Coupled ISTA, depth with a guide, scale 8 (chapter 13_coupled_ista)."""

from functools import partial

from . import coupled_ista

SCALE = 8
SIZES = {"size": 12, "atoms": 192}
PROFILES = coupled_ista.profiles(11900)
recipe = partial(coupled_ista.recipe, kind="depth", scale=SCALE, **SIZES)
super_resolve = partial(coupled_ista.super_resolve, name="coupled_ista_x8", **SIZES)
