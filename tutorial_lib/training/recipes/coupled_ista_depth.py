"""Coupled ISTA, depth with a guide, scale 4, the published size (chapter 13_coupled_ista).

The weights that come with the package were trained in several runs, each from the end of the one
before, with a new warm-up of the learning rate: `parts` in their record. So were most of its kin.
"""

from functools import partial

from . import coupled_ista

SCALE = 4
SIZES = {"size": 8, "atoms": 512}
PROFILES = coupled_ista.profiles(33000)
recipe = partial(coupled_ista.recipe, kind="depth", scale=SCALE, **SIZES)
super_resolve = partial(coupled_ista.super_resolve, name="coupled_ista_depth", **SIZES)
