"""Maps that contract, for the tests of fixed points."""

import pytest
import torch

METHODS = pytest.mark.parametrize("method", ["picard", "anderson", "broyden"])


def randn(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def contraction(n=12, L=0.8, seed=0):
    """A matrix of norm L."""
    A = randn(n, n, seed=seed)
    return L * A / torch.linalg.matrix_norm(A, 2)


def tanh_map(n=12, b=3, L=0.8):
    """z -> tanh(z W + x), and W, x."""
    W, x = contraction(n, L), randn(b, n, seed=1)
    return (lambda z: torch.tanh(z @ W + x)), W, x
