"""ALISTA, only steps and thresholds learned, SNR 40 dB (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(400, lr=1e-2, snr=40.0)
recipe = partial(lista.recipe, kind="alista")
