"""Coupled ISTA, depth with a guide, scale 16 (chapter 13_coupled_ista)."""

from functools import partial

from . import coupled_ista

SCALE = 16
SIZES = {"size": 16, "atoms": 128}
PROFILES = coupled_ista.profiles(6900)
recipe = partial(coupled_ista.recipe, kind="depth", scale=SCALE, **SIZES)
super_resolve = partial(coupled_ista.super_resolve, name="coupled_ista_x16", **SIZES)
