"""Step-LISTA, steps for the lasso learned without true codes (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(300, lr=5e-2)
recipe = partial(lista.recipe, kind="step")
