"""LISTA-CPSS, one weight for all layers, without noise (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(1000, lr=5e-3)
recipe = partial(lista.recipe, kind="ss")
