"""LISTA-CP, one weight for all layers, SNR 40 dB (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(600, lr=5e-3, snr=40.0)
recipe = partial(lista.recipe, kind="cp")
