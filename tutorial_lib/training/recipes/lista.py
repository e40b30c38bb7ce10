"""The LISTA networks on the standard experiment: 250 observations of codes with 500 entries."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tutorial_lib.data import gaussian_matrix, observe, sparse_codes
from tutorial_lib.networks.lista import (
    LISTA,
    CoupledLISTA,
    StepLISTA,
    analytic_weight,
    selection,
)

from ..loop import Recipe

TEST = 2**31  # number of the first sample of the test set; training never gets there
START = {  # threshold and its factor from layer to layer, with support selection and without
    None: ((0.7, 0.75), (0.55, 0.8)),
    40.0: ((0.7, 0.8), (0.55, 0.8)),
    20.0: ((0.85, 0.9), (0.55, 0.85)),
}


def profiles(steps: int, *, lr: float, snr: float | None = None) -> dict[str, dict[str, Any]]:
    """The three sizes of one network."""
    full = {"steps": steps, "lr": lr, "batch_size": 64, "snr": snr, "validation": 500}
    smoke = full | {"steps": 8, "lr": 1e-3, "batch_size": 32, "validation": 50}
    return {"smoke": smoke, "cpu": full, "full": full}


def experiment(
    count: int = 1000, *, snr: float | None = None, first: int = TEST, seed: int = 0
) -> tuple[Float[Tensor, "250 500"], Float[Tensor, "count 500"], Float[Tensor, "count 250"]]:
    """The matrix A, codes x and their observations y: the test set, always the same."""
    A = gaussian_matrix()
    index = torch.arange(first, first + count)
    x = sparse_codes(index, seed=seed)
    return A, x, observe(A, x, index, snr=snr, seed=seed)


def nmse(estimate: Float[Tensor, "*batch n"], x: Float[Tensor, "*batch n"]) -> Float[Tensor, ""]:
    """10 log10 of sum ||estimate - x||^2 / sum ||x||^2 over the whole batch, in dB.

    >>> nmse(torch.tensor([[1.1, 0.0]]), torch.tensor([[1.0, 0.0]])).round(decimals=3)
    tensor(-20.)
    """
    return 10 * torch.log10((estimate - x).square().sum() / x.square().sum() + 1e-12)


def start(kind: str, *, snr: float | None = None, layers: int = 16) -> nn.Module:
    """A network as training finds it: the analytic weight, steps of 1, falling thresholds.

    Args:
        kind: "lista", "cp" (coupled), "ss" (coupled, support selection), "alista" (support
            selection, the weight fixed), "step" (ISTA for the lasso with lam = 0.1).
        snr: of the observations, None (no noise), 40 or 20 dB: it chooses the thresholds.
        layers: K.
    """
    A = gaussian_matrix()
    if kind == "step":
        return StepLISTA(A, layers)
    W = analytic_weight(A.double()).float()
    with_selection = kind not in ("lista", "cp")
    first, factor = START[snr][0 if with_selection else 1]
    thresholds = [first * factor**k for k in range(layers)]
    if kind == "lista":
        return LISTA(A, layers, weight=W, step=1.0, thresholds=thresholds)
    return CoupledLISTA(
        A,
        layers,
        learn="fixed" if kind == "alista" else "shared",
        weight=W,
        steps=1.0,
        thresholds=thresholds,
        percents=selection(layers) if with_selection else None,
    )


def recovery_loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """NMSE of the code in dB, mean over the layers, the k-th with weight k."""
    x, y = batch
    levels = torch.stack([nmse(code, x) for code in network.codes(y)])
    weights = torch.arange(1, len(levels) + 1).to(levels)
    return (weights * levels).sum() / weights.sum()


def lasso_loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Float[Tensor, ""]:
    """1/2 ||y - A x||^2 + lam ||x||_1 of the last code, mean over samples; no true code is used."""
    y = batch[1]
    x = network(y)
    return (0.5 * (y - x @ network.A.mT).square().sum(1) + network.lam * x.abs().sum(1)).mean()


def batch(
    index: Int[Tensor, " b"], *, A: Float[Tensor, "250 500"], snr: float | None, seed: int
) -> tuple[Float[Tensor, "b 500"], Float[Tensor, "b 250"]]:
    """Codes and their observations."""
    x = sparse_codes(index, seed=seed)
    return x, observe(A, x, index, snr=snr, seed=seed)


def recipe(
    *,
    kind: str,
    lr: float,
    batch_size: int,
    snr: float | None = None,
    validation: int = 500,
    seed: int = 0,
) -> Recipe:
    """One network of 16 layers at one noise level.

    Args:
        kind: as in `start`.
        lr: largest learning rate.
        batch_size: samples of a step.
        snr: in dB, 40 or 20; None: no noise.
        validation: samples to validate on, apart from the test set.
        seed: of the samples.
    """
    A, *held_out = experiment(validation, snr=snr, first=TEST // 2, seed=seed)
    loss = lasso_loss if kind == "step" else recovery_loss

    def validate(network: nn.Module) -> dict[str, float]:
        x, y = (u.to(next(network.parameters()).device) for u in held_out)
        if kind == "step":
            return {"minus_objective": -lasso_loss(network, (x, y), 0).item()}
        return {"minus_nmse": -nmse(network(y), x).item()}

    noise = "no noise" if snr is None else f"signal-to-noise ratio {snr:g} dB"
    return Recipe(
        network=partial(start, kind, snr=snr),
        batch=partial(batch, A=A, snr=snr, seed=seed),
        loss=loss,
        validate=validate,
        batch_size=batch_size,
        lr=lr,
        clip=10.0,
        data=f"codes drawn at random, {noise}",
    )
