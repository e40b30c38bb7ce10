"""The soft threshold of the networks: that of `thresholding`, its derivatives, dtypes."""

import pytest
import torch

from tutorial_lib.networks.shrinkage import shrink
from tutorial_lib.thresholding import soft


@pytest.mark.parametrize(
    "shape, of_threshold",
    [((6, 5), (5,)), ((5,), (5,)), ((2, 3), ()), ((2, 3, 4, 4), (1, 3, 1, 1))]
    + [((2, 3, 4, 4), (2, 3, 1, 1)), ((2, 3, 4, 4), (3, 1, 1))],
)
def test_it_is_soft_with_exact_derivatives(shape, of_threshold):
    g = torch.Generator().manual_seed(0)
    v = 3 * torch.randn(shape, generator=g, dtype=torch.float64)
    t = 2 * torch.rand(of_threshold, generator=g, dtype=torch.float64)
    assert torch.equal(shrink(v, t), soft(v, t))
    v.requires_grad_(), t.requires_grad_()
    assert torch.autograd.gradcheck(shrink, (v, t))
    assert torch.autograd.gradgradcheck(shrink, (v, t))  # the Jacobian penalty needs it


def test_half_precision_is_kept():
    v = torch.tensor([3.0, -0.5], dtype=torch.bfloat16)
    assert shrink(v, torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16
