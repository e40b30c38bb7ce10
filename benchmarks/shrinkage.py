"""BayesShrink of noisy photographs: the same rule, the same pixels."""

import math
from functools import partial

import numpy as np
import torch
from skimage.data import camera

from tutorial_lib.data import add_noise
from tutorial_lib.thresholding import denoise_wavelet

from .runner import Case, Entry

LEVEL, SIGMA = 4, 0.1
CLEAN = torch.from_numpy(camera() / 255.0).float()
NOISY = torch.stack([add_noise(CLEAN, SIGMA, seed=seed) for seed in range(32)])


def skimage_denoise(y, wavelet):
    from skimage.restoration import denoise_wavelet as theirs

    options = {"method": "BayesShrink", "wavelet_levels": LEVEL, "rescale_sigma": False}
    return theirs(y, wavelet=wavelet, **options)


def decibels(x):
    """PSNR of each image."""
    return -10 * (x.double() - CLEAN).square().mean((-2, -1)).log10()


def entry(run, wavelet, count, note=""):
    """`run` returns (count, 512, 512)."""

    def error():
        """Difference of PSNR, in dB, to scikit-image in float64; inf if a pixel differs by 1e-3."""
        expected = [skimage_denoise(y.double().numpy(), wavelet) for y in NOISY[: min(count, 2)]]
        expected = torch.from_numpy(np.stack(expected))
        found = run()[: len(expected)].double()
        if (found - expected).abs().max() > 1e-3:
            return math.inf
        return float((decibels(found) - decibels(expected)).abs().max())

    return Entry(run, error, 0.01, note=note)


def ours(wavelet, count):
    y = NOISY[:count].clone()

    return entry(lambda: denoise_wavelet(y, wavelet=wavelet, level=LEVEL), wavelet, count)


def scikit_image(wavelet, count):
    y = NOISY[:count].numpy()

    def run():
        return torch.from_numpy(np.stack([skimage_denoise(image, wavelet) for image in y]))

    return entry(run, wavelet, count, "one image after the other")


def cases():
    return [
        Case(
            f"BayesShrink, {count} x 512x512 float32, {wavelet}, {LEVEL} levels",
            {
                "tutorial_lib": partial(ours, wavelet, count),
                "scikit-image": partial(scikit_image, wavelet, count),
            },
            "scikit-image",
            target,
            peak=wavelet == "sym8",
        )
        for count, target in ((1, 1.0), (32, 1 / 3))
        for wavelet in ("haar", "db4", "sym8")
    ]
