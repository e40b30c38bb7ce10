"""ALISTA, only steps and thresholds learned, SNR 20 dB (chapter 11_lista)."""

from functools import partial

from . import lista

PROFILES = lista.profiles(300, lr=1e-2, snr=20.0)
recipe = partial(lista.recipe, kind="alista")
