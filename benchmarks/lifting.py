"""5/3 wavelet transform of a batch of colour images by lifting steps, against filter banks."""

from functools import partial

import pywt
import torch

from tutorial_lib.lifting import ilwt2, lwt2

from .dwt import X, bands
from .runner import Case, Entry

WAVELET, LEVEL = "bior2.2", 3
SIZE = f"8x3x256x256 float32, 5/3, {LEVEL} levels"


def error(forward, inverse, mode):
    """The worst relative error of the coefficients and of the reconstruction."""
    coeffs = forward(X[:1])
    expected = bands(pywt.wavedec2(X[:1].double(), WAVELET, mode=mode, level=LEVEL))
    back = torch.as_tensor(inverse(coeffs))[..., :256, :256]
    pairs = [(bands(coeffs), expected), (back, X[:1])]
    return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)


def entry(forward, inverse, mode, work, note=""):
    def run():
        coeffs = forward(X)
        return inverse(coeffs) if "inverse" in work else coeffs

    return Entry(run, partial(error, forward, inverse, mode), 1e-5, note=note)


def ours(work):
    return entry(
        partial(lwt2, wavelet="5/3", level=LEVEL),
        partial(ilwt2, wavelet="5/3"),
        "periodization",
        work,
    )


def ptwt(work):
    from ptwt import wavedec2, waverec2

    forward = partial(wavedec2, wavelet=WAVELET, mode="periodic", level=LEVEL)
    note = "keeps 4 coefficients more a side and level"
    return entry(forward, partial(waverec2, wavelet=WAVELET), "periodic", work, note)


def pywavelets(work):
    options = {"wavelet": WAVELET, "mode": "periodization"}
    forward = partial(pywt.wavedec2, level=LEVEL, **options)
    return entry(forward, partial(pywt.waverec2, **options), "periodization", work, "one thread")


def cases():
    """5 ms where PyWavelets takes 15.3 and ptwt 8.2."""
    return [
        Case(
            f"{work}, {SIZE}",
            {
                "tutorial_lib": partial(ours, work),
                "pywavelets": partial(pywavelets, work),
                "ptwt": partial(ptwt, work),
            },
            "ptwt",
            0.61,
        )
        for work in ("forward", "forward + inverse")
    ]
