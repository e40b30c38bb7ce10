"""Coupled ISTA without its guide, near infrared, scale 4 (chapter 13_coupled_ista)."""

from functools import partial

from . import coupled_ista

SCALE = 4
SIZES = {"size": 8, "atoms": 256, "guided": False}
PROFILES = coupled_ista.profiles(9600)
recipe = partial(coupled_ista.recipe, kind="nir", scale=SCALE, **SIZES)
super_resolve = partial(coupled_ista.super_resolve, name="coupled_ista_single_nir", **SIZES)
