"""The same step, learned as five layers (chapter 18_deep_equilibrium)."""

from functools import partial

from . import equilibrium

PROFILES = equilibrium.profiles()
recipe = partial(equilibrium.recipe, unrolled=equilibrium.DEPTH, mu=0.01)
trained = partial(equilibrium.trained, "equilibrium_unrolled", equilibrium.DEPTH)
