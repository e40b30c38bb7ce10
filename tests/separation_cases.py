"""A small separation problem, for the tests of its model and of its solver."""

import torch

from tutorial_lib.separation_model import State, Weights

W = Weights(gamma=0.7, tau1=0.3, tau2=0.4, lam1=0.05, lam2=0.06, mu=0.5)


def rand(*shape, seed=0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=g, dtype=torch.float64)


def unsolved():
    """x, bands and a state in which nothing is at its optimum."""
    state = State(
        rand(16, 18, seed=1),
        rand(16, 18, seed=2),
        rand(4, 16, 18, seed=3),
        rand(4, 16, 18, seed=4),
        rand(4, 3, 3, seed=5) / 4,
        rand(1, 5, 5, seed=6) / 8,
        rand(3, 3, 3, seed=7) / 3,
    )
    return rand(16, 18), rand(3, 16, 18), state
