"""Total variation: the penalty, and the restoration with it, certified by its conditions."""

import math

import pytest
import torch

from tutorial_lib.operators import NotConvergedWarning, blur, identity, mask
from tutorial_lib.total_variation import (
    differences,
    differences_adjoint,
    restore_tv,
    total_variation,
)

KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.0], [0.0, 0.1, 0.1]], dtype=torch.float64)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_adjoint_of_the_differences():
    x, q = randn(3, 5, 7), randn(3, 2, 5, 7, seed=1)
    left = (differences(x) * q).sum()
    assert torch.isclose(left, (x * differences_adjoint(q)).sum())


def test_total_variation_counts_an_edge_once_and_is_isotropic():
    step = torch.zeros(6, 8, dtype=torch.float64)
    step[:, 3:] = 2
    assert total_variation(step) == 12
    i = torch.arange(8, dtype=torch.float64)
    slanted = total_variation((i[:, None] + i).expand(8, 8))
    assert slanted == pytest.approx(49 * math.sqrt(2) + 14)  # the last row and column have one
    assert total_variation(torch.stack([step, 0 * step])).tolist() == [12, 0]


@pytest.mark.parametrize(
    "H",
    [identity((6, 7)), blur(KERNEL, (6, 7)), blur(KERNEL, (6, 7), boundary="padded"),
     mask(randn(6, 7) > -0.5)],
    ids=["identity", "circular", "padded", "mask"],
)  # fmt: skip
def test_nothing_near_is_better(H):
    lam, y = 0.1, randn(*H.shape_out)

    def F(x):
        return (y - H(x)).square().sum() / 2 + lam * total_variation(x)

    found = restore_tv(y, H, lam, step=1.0, rtol=1e-5)
    assert found.converged
    least = F(found.value)
    for seed in range(20):
        for size in (1e-1, 1e-2, 1e-3):
            assert F(found.value + size * randn(6, 7, seed=seed)) >= least - 1e-5


def test_the_limits_of_lambda():
    H, y = blur(KERNEL, (6, 7)), randn(6, 7)
    flat = restore_tv(y, H, 100.0, step=1.0, rtol=1e-9, max_steps=5000).value
    assert torch.allclose(flat, y.mean().expand(6, 7), atol=1e-6)  # the kernel sums to one
    exact = restore_tv(H(y), H, 0.0, step=1e4, rtol=1e-9, max_steps=5000).value
    assert torch.allclose(exact, y, atol=1e-4)


def test_the_step_does_not_matter():
    H, y = blur(KERNEL, (6, 7)), randn(2, 6, 7)
    a, b = (restore_tv(y, H, 0.1, step=s, rtol=1e-9, max_steps=20_000).value for s in (0.5, 2.0))
    assert torch.allclose(a, b, atol=1e-5)


def test_refusals():
    H, y = identity((6, 7)), randn(6, 7)
    for options in ({"lam": -1.0}, {"step": 0.0}, {"rtol": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
            restore_tv(y, H, **({"lam": 0.1} | options))
    with pytest.raises(ValueError, match="NaN"):
        restore_tv(y * math.nan, H, 0.1)
    with pytest.warns(NotConvergedWarning, match="1 of 1 did not reach"):
        assert not restore_tv(y, H, 0.1, max_steps=2).converged
