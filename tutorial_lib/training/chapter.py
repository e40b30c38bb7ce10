"""A chapter's network: its recorded weights, or training, as the profile says."""

import contextlib
import copy
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch

from .loop import checkpoints, fit
from .record import describe
from .state import Recipe, Run
from .weights import fill, load_weights, shipped


def fit_or_load(name: str, recipe: Recipe, cfg: SimpleNamespace, *, retrain: bool = False) -> Run:
    """A chapter's network: the recorded weights, or training, as the profile says.

    Profile smoke trains `cfg.steps` steps, checks them (each parameter has a gradient, the loss on
    the first batch has fallen) and returns the recorded weights if there are any. The others
    return the recorded weights, and train only when asked to, or when there are none; their
    checkpoints lie in runs/ until the end, so that a cell that was interrupted goes on.

    Args:
        name: of the weights.
        recipe: what is trained.
        cfg: `profile(...)` with at least `steps`; a `seed` is used.
        retrain: train in any case.

    Raises:
        RuntimeError: no recorded weights although TUTORIAL_REQUIRE_WEIGHTS=1; a smoke check fails.
        ValueError: the weights are damaged, or do not fit `recipe.network()`.
    """
    have, smoke = name in shipped(), cfg.name == "smoke"
    if not have and os.environ.get("TUTORIAL_REQUIRE_WEIGHTS") == "1":
        raise RuntimeError(f"no weights {name!r} come with the package, and they are required")
    if have and not smoke and not retrain:
        return load_run(name, recipe)
    settings = {"steps": cfg.steps, "seed": getattr(cfg, "seed", 0), "config": vars(cfg)}
    if not smoke:
        out = Path("runs") / f"{name}-{cfg.name}"
        run = fit(name, recipe, out=out, **settings)
        for path in checkpoints(out, name):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            out.rmdir()
        return run
    with tempfile.TemporaryDirectory() as out:
        run = fit(name, recipe, out=out, **settings)
    told = check_training(run, recipe, seed=settings["seed"])
    trained = run._replace(origin=f"{run.origin}; {told}")
    if not have:
        return trained
    loaded = load_run(name, recipe)
    return loaded._replace(origin=f"{loaded.origin}\n{trained.origin}")


def load_run(name: str, recipe: Recipe) -> Run:
    """The weights that come with the package, in the network of a recipe, and their record."""
    state, record = load_weights(name)
    with torch.random.fork_rng(devices=[]):
        network = recipe.network().eval()
    fill(network, state, source=f"the weights {name!r}")
    history = record["curves"] | {"rollback": record["rollback"]}
    return Run(network, f"weights {name!r}: {describe(record)}", record, history)


def check_training(run: Run, recipe: Recipe, *, seed: int = 0) -> str:
    """The loss on the first batch has fallen, and each parameter gets a gradient; told in words.

    Raises:
        RuntimeError: it has not, or a parameter gets none.
    """
    batch = recipe.batch(torch.arange(recipe.batch_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = recipe.loss(recipe.network().train(), batch, 0).item()
        network = copy.deepcopy(run.network).train()
        torch.manual_seed(seed)
        after = recipe.loss(network, batch, 0)
    after.backward()
    for key, p in network.named_parameters():
        if p.requires_grad and (p.grad is None or not p.grad.any()):
            raise RuntimeError(f"{run.record['name']}: no gradient reaches {key}")
    if not after.item() < before:
        raise RuntimeError(
            f"{run.record['name']}: {run.record['steps']} steps do not lower the loss on the first "
            f"batch: {before:.6g} before, {after.item():.6g} after"
        )
    return f"loss on the first batch {before:.4g} -> {after.item():.4g}"
