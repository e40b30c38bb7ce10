"""A step of sparse coding, learned at its fixed point (chapter 18_deep_equilibrium)."""

from functools import partial

from . import equilibrium

PROFILES = equilibrium.profiles()
recipe = equilibrium.recipe
trained = partial(equilibrium.trained, "equilibrium_implicit")
