"""Cubes made from photographs: what is kept of the photograph, and what is refused."""

import numpy as np
import pytest
import torch

from tutorial_lib.data import invent_cube, photograph
from tutorial_lib.low_rank import signal_subspace


def make(seed=0, **options):
    rgb = photograph("astronaut", size=96, gray=False)
    return rgb, invent_cube(rgb, np.random.default_rng(seed), **options)


def test_a_cube_is_a_function_of_the_colour_and_of_its_seed():
    _, cube = make(3, side=96)
    assert cube.shape == (31, 96, 96) and cube.min() >= 0 and cube.max() == 1
    assert torch.equal(cube, make(3, side=96)[1]) and not torch.equal(cube, make(4, side=96)[1])
    flat = torch.ones(3, 40, 40) * torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1)
    flat[:, :20] = 0.3  # two colours, two spectra
    two = invent_cube(flat, np.random.default_rng(0), side=40)
    assert (two[:, :20] == two[:, :1, :1]).all() and (two[:, 20:] == two[:, -1:, -1:]).all()
    assert not torch.allclose(two[:, 0, 0], two[:, -1, -1])


@pytest.mark.parametrize("seed", range(4))
def test_spectra_are_few_but_more_than_three(seed):
    _, cube = make(seed, side=96)
    noisy = cube.flatten(1) / 1e-3
    noisy = noisy + torch.randn(noisy.shape, generator=torch.Generator().manual_seed(0))
    assert 4 <= signal_subspace(noisy).shape[1] <= 16


def test_a_photograph_must_be_large_enough():
    with pytest.raises(ValueError, match="96 x 96 pixels: 256 x 256 are needed"):
        make()
