"""LISTA-CP, one weight for all layers, SNR 20 dB (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(400, lr=5e-3, snr=20.0)
recipe = partial(lista.recipe, kind="cp")
