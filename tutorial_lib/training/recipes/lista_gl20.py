"""LISTA as Gregor and LeCun have it, SNR 20 dB (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(600, lr=5e-3, snr=20.0)
recipe = partial(lista.recipe, kind="lista")
