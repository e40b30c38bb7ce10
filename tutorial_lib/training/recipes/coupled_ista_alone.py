"""Coupled ISTA without its guide, depth, scale 4 (chapter 13_coupled_ista)."""

from functools import partial

from . import coupled_ista

SCALE = 4
SIZES = {"size": 8, "atoms": 512, "guided": False}
PROFILES = coupled_ista.profiles(37400)
recipe = partial(coupled_ista.recipe, kind="depth", scale=SCALE, **SIZES)
super_resolve = partial(coupled_ista.super_resolve, name="coupled_ista_alone", **SIZES)
