"""Separation of mixed X-rays by networks trained on one painting: the table of chapter 16.

python -m benchmarks.xray_network     weights/xray_networks.json: six mixtures of paintings, of
                                      128 x 128 pixels; what is there already is not done again

The regressions of benchmarks.xray and networks; errors are in the unit of that table, and those of
the model stand there, under ablation. Three seeds of each network.
"""

import itertools
import json
import tempfile
import time

import torch

from benchmarks.xray import mixtures, regressions, scores
from tutorial_lib.data import paintings_on_disk
from tutorial_lib.data.xray import Mixture
from tutorial_lib.training import fit
from tutorial_lib.training.recipes.xray import recipe_for, separate_with, solve
from tutorial_lib.training.weights import WEIGHTS

SIZE, SEEDS, STEPS, PATCH = 128, (0, 1, 2), 300, 32
FILE = WEIGHTS / "xray_networks.json"
NETWORKS = {
    "separate": {"layers": 0, "lr": 1e-2},
    "R(r) alone": {"layers": 0, "lr": 1e-2},
    "R(r), 2 layers": {"layers": 2, "lr": 3e-3},
    "R(r), 2 layers, no exclusion": {"layers": 2, "lr": 3e-3, "exclusion": 0.0},
    "R(x1) as published, 2 layers": {"head": "nonlinear", "layers": 2, "lr": 3e-3},
    "R(x1) linear, 2 layers": {"head": "linear", "layers": 2, "lr": 3e-3},
}


def trained(mix: Mixture, method: str, seed: int) -> list[float]:
    """The scores of a network after training, the processor time that it took, and, where layers
    follow R(r), the error of this R(r) before them."""
    begin, settings = time.process_time(), NETWORKS[method]
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for(mix.visible, mix.xray, patch=PATCH, seed=seed, **settings)
        run = fit("xray", recipe, steps=STEPS, seed=seed, out=folder)
    parts = separate_with(run.network, mix.visible, mix.xray)
    surface, before = parts.surface[0, 0], []
    if method == "separate":
        surface = solve(run.network.head, mix.visible, mix.xray)
    elif settings["layers"] and run.network.turned:
        before = scores(mix, parts.seen[0, 0])[:1]
    return [*scores(mix, surface), round(time.process_time() - begin, 1), *before]


def main() -> None:
    if not paintings_on_disk():
        raise SystemExit("the folder paintings of the data directory is needed")
    torch.set_num_threads(1)
    found = json.loads(FILE.read_text()) if FILE.is_file() else {"rows": {}}
    found["settings"] = {"size": SIZE, "steps": STEPS, "patch": PATCH}
    six = dict(itertools.islice(mixtures(SIZE).items(), 6))

    def keep(name: str, method: str, score: list[float]) -> None:
        found["rows"].setdefault(name, {}).setdefault(method, []).append(score)
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        print(name, method, score, flush=True)

    for name, mix in six.items():
        for method, surface in regressions(mix).items():
            found["rows"].setdefault(name, {})[method] = [scores(mix, surface)]
    jobs = [(method, seed, name) for method in NETWORKS for seed in SEEDS for name in six]
    for method, seed, name in sorted(
        jobs, key=lambda j: (NETWORKS[j[0]]["layers"], not j[2].endswith("0.5"))
    ):
        if len(found["rows"][name].get(method, [])) == seed:
            keep(name, method, trained(six[name], method, seed))


if __name__ == "__main__":
    main()
