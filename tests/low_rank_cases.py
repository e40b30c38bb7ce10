"""Random numbers and a cube of rank 3, for the tests."""

import torch


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def flat_scene(bands=20, side=64):
    """Three materials in rectangles: rank 3, piecewise constant."""
    spectra = torch.rand(3, bands, generator=torch.Generator().manual_seed(1))
    maps = torch.zeros(3, side, side)
    maps[0] = 1.0
    maps[:2, 10:40, 5:50] = torch.tensor([0.0, 1.0])[:, None, None]
    maps[0, 30:60, 30:60], maps[1, 30:60, 30:60], maps[2, 30:60, 30:60] = 0.0, 0.0, 1.0
    return torch.einsum("kb,khw->bhw", spectra, maps)


CUBE = flat_scene()
