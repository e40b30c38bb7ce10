"""Separation of mixed X-rays by regression and by the sparse model: the tables of chapter 15.

python -m benchmarks.xray methods     weights/xray_model.json: two pairs of paintings (where they
                                      are on disk) and two of photographs, three ratios each
python -m benchmarks.xray ablation    the same file: the model without one term after the other
python -m benchmarks.xray trouble     the same file: cracks, weave, misregistration

256 x 256 pixels, 96 x 96 for the ablation and the trouble; 60 rounds of the model. Errors are
mean squares without the free constant, counted once, times 1000; SSIM of both parts.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tutorial_lib.data import luma, mixture, paintings_on_disk, xray_pairs
from tutorial_lib.data.xray import Mixture
from tutorial_lib.metrics import separation_scores
from tutorial_lib.regression import (
    curve_regression,
    edge_regression,
    linear_regression,
    standard_bands,
    visible_bands,
)
from tutorial_lib.separation import separate
from tutorial_lib.separation_model import Weights
from tutorial_lib.training.weights import WEIGHTS

RATIOS = (0.3, 0.5, 0.7)
ROUNDS = 60
FILE = WEIGHTS / "xray_model.json"
TROUBLE = {
    "cracks": {"cracks": 0.1},
    "weave": {"weave": 0.03},
    "shift": {"shift": (1, 2)},
}


def regressions(mix: Mixture) -> dict[str, Tensor]:
    """The surface without its mean, by the three regressions."""
    bands = visible_bands(luma(mix.visible)[None])
    return {
        "linear regression": linear_regression(mix.xray, mix.visible),
        "curve regression": curve_regression(mix.xray, bands),
        "edge regression": edge_regression(mix.xray, bands),
    }


def model(mix: Mixture, **options: object) -> Tensor:
    """The surface by the model with the gray cut into bands."""
    bands = visible_bands(luma(mix.visible)[None])
    return separate(mix.xray, bands, **{"rounds": ROUNDS, **options}).x1


def linear_link(mix: Mixture) -> Tensor:
    """By the model with colours and filters of 5 x 5 pixels, begun at the linear regression."""
    y1 = linear_regression(mix.xray, mix.visible)
    bands = standard_bands(mix.visible)
    return separate(mix.xray, bands, y1=y1, link=5, rounds=ROUNDS).x1


ABLATION: dict[str, Callable[[Mixture], Tensor]] = {
    "full model": model,
    "no exclusion": partial(model, weights=Weights(mu=0.0)),
    "stronger exclusion": partial(model, weights=Weights(mu=1.0)),
    "no link": partial(model, weights=Weights(gamma=0.0)),
    "link linear in the colours": linear_link,
    "no sparsity of the surface": partial(model, weights=Weights(lam1=0.0)),
    "no sparsity of the design": partial(model, weights=Weights(lam2=0.0)),
    "no codes at all": partial(model, weights=Weights(tau1=0.0, tau2=0.0)),
    "filters not learned": partial(model, learn=False),
}


def scores(mix: Mixture, x1: Tensor) -> list[float]:
    s = separation_scores(x1, mix.xray - x1, mix.surface, mix.hidden)
    return [round(1e3 * s["mse_free"], 4), round(s["ssim1"], 4), round(s["ssim2"], 4)]


def methods(mix: Mixture) -> dict[str, list[float]]:
    found = regressions(mix)
    found["no exclusion"] = model(mix, weights=Weights(mu=0.0))
    found["full model"] = model(mix)
    found["full model from edges"] = model(mix, y1=found["edge regression"])
    return {name: scores(mix, x1) for name, x1 in found.items()}


def ablation(mix: Mixture) -> dict[str, list[float]]:
    return {name: scores(mix, separated(mix)) for name, separated in ABLATION.items()}


def mixtures(size: int, **trouble: object) -> dict[str, Mixture]:
    """All pairs at all ratios, by name; paintings first."""
    pairs = xray_pairs(size=size) if paintings_on_disk() else []
    return {
        f"{name}, {ratio}": mixture(visible, hidden, ratio=ratio, **trouble)
        for name, visible, hidden in pairs + xray_pairs(size=size, bundled=True)
        for ratio in RATIOS
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xray", description=__doc__)
    parser.add_argument("part", choices=("methods", "ablation", "trouble"))
    part = parser.parse_args().part
    torch.set_num_threads(1)
    if part == "methods":
        jobs = {name: partial(methods, mix) for name, mix in mixtures(256).items()}
    elif part == "ablation":
        jobs = {name: partial(ablation, mix) for name, mix in mixtures(96).items()}
    else:
        jobs = {
            f"{what}: {name}": partial(methods, mix)
            for what, how in TROUBLE.items()
            for name, mix in mixtures(96, **how).items()
            if name.endswith("0.5")
        }
    results = {}
    for name, job in jobs.items():
        results[name] = job()
        print(name, {k: v[0] for k, v in results[name].items()}, flush=True)
        record = json.loads(FILE.read_text()) if FILE.is_file() else {}
        FILE.write_text(json.dumps(record | {part: results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
