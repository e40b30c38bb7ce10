"""LISTA as Gregor and LeCun have it, without noise (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(3000, lr=5e-3)
recipe = partial(lista.recipe, kind="lista")
