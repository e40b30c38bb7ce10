"""ALISTA, only steps and thresholds learned, without noise (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(800, lr=1e-2)
recipe = partial(lista.recipe, kind="alista")
