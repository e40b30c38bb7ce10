"""Coupled ISTA, near infrared with a guide, scale 4 (chapter 13_coupled_ista)."""

from functools import partial

from . import coupled_ista

SCALE = 4
SIZES = {"size": 8, "atoms": 256}
PROFILES = coupled_ista.profiles(6700)
recipe = partial(coupled_ista.recipe, kind="nir", scale=SCALE, **SIZES)
super_resolve = partial(coupled_ista.super_resolve, name="coupled_ista_nir", **SIZES)
