"""One training loop for every network of the book: on a laptop, a GPU, or many of them."""

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from .state import Recipe, Run, Training, parse
from .weights import write_atomically

LOOK = 10  # steps between two looks at the losses: each look waits for the GPU


def fit(
    name: str,
    recipe: Recipe,
    *,
    steps: int,
    out: str | Path,
    seed: int = 0,
    resume: bool = True,
    checkpoint_every: int | None = None,
    validate_every: int | None = None,
    precision: str = "auto",
    config: dict[str, Any] | None = None,
) -> Run:
    """Train; go on from the last checkpoint where there is one.

    Killed at any moment and called again, it ends in the same weights, on a CPU bit for bit. Under
    `accelerate launch` each process computes its share of every batch, and the losses are those
    of one process up to rounding; a loss or a layer that is not a plain mean over samples (batch
    normalisation) sees the share only.

    Args:
        name: names the files in `out`.
        recipe: what is trained.
        steps: of Adam; sample numbers are 0 to steps * batch_size - 1.
        out: folder of the checkpoints, created where it is missing: the last two are kept.
        seed: of the initial weights, and of dropout and the like.
        resume: False begins anew, and the checkpoints in `out` are overwritten.
        checkpoint_every: in steps; None: 50 over the run, but not below every tenth step.
        validate_every: in steps; None: 10 over the run, but not below every tenth step. The last
            step is always validated.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 on a GPU that has it.
        config: for the record; a checkpoint with another one is not resumed.

    Raises:
        ValueError: numbers out of range; a checkpoint of another run, or a damaged one.
        OSError: before training, if `out` cannot hold the checkpoints; during, with the last
            checkpoint kept.
        FloatingPointError: a loss that is not finite, also after three returns to a checkpoint,
            each with half the learning rate.
    """
    world = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"))
    checkpoint_every = max(LOOK, steps // 50) if checkpoint_every is None else checkpoint_every
    validate_every = max(LOOK, steps // 10) if validate_every is None else validate_every
    every = (checkpoint_every, validate_every)
    _check(recipe, steps, seed, every, precision, world.num_processes)
    run = {"name": name, "steps": steps, "seed": seed, "config": config or {}}
    run |= {key: getattr(recipe, key) for key in ("batch_size", "lr", "clip", "ema", "data")}
    run = json.loads(json.dumps(run))  # as it is read back from a checkpoint
    paths = checkpoints(out, name)
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        training = Training(recipe, run, precision, world)
        good = [None]
        if world.is_main_process:
            _make_room(paths, training.size(), resume=resume)
            good = [_newest(paths, run)]
        broadcast_object_list(good)  # other machines need not see the folder
        if good[0]:
            training.unpack(good[0])
        good = training.pack()
        bar = tqdm(total=steps, initial=training.step, desc=name, disable=not world.is_main_process)
        while training.step < steps:
            for step, batch in _batches(recipe, training.step, steps, world):
                training.take(step, batch)
                done = step + 1
                last = done == steps
                save = last or done % checkpoint_every == 0
                score = last or done % validate_every == 0
                if not (save or score or done % LOOK == 0):
                    continue
                if not training.losses[training.step : done].isfinite().all():
                    training.go_back(good, done)
                    break
                training.step = done
                if score and world.is_main_process:
                    training.validate()
                if save:
                    good = training.pack()
                if save and world.is_main_process:
                    write_atomically(paths[0], good, keep=paths[1])
                bar.set_postfix_str(training.line(), refresh=False)
                bar.update(done - bar.n)
        bar.close()
    return training.result()


def _check(
    recipe: Recipe, steps: int, seed: int, every: tuple[int, int], precision: str, processes: int
) -> None:
    if steps < 1 or min(every) < 1 or recipe.batch_size < 1:
        raise ValueError(
            f"steps {steps}, checkpoint_every {every[0]}, validate_every {every[1]} and batch_size "
            f"{recipe.batch_size} must be at least 1"
        )
    if recipe.batch_size % processes:
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes"
        )
    if not (0 < recipe.lr < math.inf and recipe.clip > 0 and 0 <= recipe.ema < 1):
        raise ValueError(
            f"lr {recipe.lr}, clip {recipe.clip}, ema {recipe.ema}: expected lr > 0, clip > 0 and "
            "0 <= ema < 1"
        )
    if not 0 <= seed < 2**23:
        raise ValueError(f"seed {seed}: expected 0 to {2**23 - 1}")
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision {precision!r}: allowed are 'auto', 'fp32', 'bf16'")


def _batches(
    recipe: Recipe, start: int, steps: int, world: PartialState
) -> Iterator[tuple[int, Any]]:
    """Each step with this process's share of its batch, drawn while the step before computes."""
    share = recipe.batch_size // world.num_processes

    def draw(step: int) -> Any:
        first = step * recipe.batch_size + world.process_index * share
        return recipe.batch(torch.arange(first, first + share))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(draw, start)
        for step in range(start, steps):
            batch = ahead.result()
            if step + 1 < steps:
                ahead = pool.submit(draw, step + 1)
            yield step, batch


def checkpoints(out: str | Path, name: str) -> list[Path]:
    """Where the newest checkpoint of a run lies, and the one before."""
    return [Path(out) / f"{name}.checkpoint{age}.safetensors" for age in ("", ".previous")]


def _make_room(paths: list[Path], size: int, *, resume: bool) -> None:
    """Refuse, before any training, a folder that cannot hold the checkpoints."""
    out = paths[0].parent
    size *= 3 - sum(path.exists() for path in paths)  # two are kept while a third is written
    probe = out / f"{paths[0].stem}.probe"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(probe, os.urandom(size))
        probe.unlink()
        for path in paths if not resume else ():
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{out} cannot hold checkpoints of {size / 1e6:.1f} MB: {error.strerror}"
        ) from error


def _newest(paths: list[Path], run: dict[str, Any]) -> bytes | None:
    """The content of the last complete checkpoint, if there is one."""
    damaged = None
    for path in paths:
        if not path.exists():
            continue
        content = path.read_bytes()
        try:
            found = parse(content)[1]["run"]
        except ValueError as error:
            damaged = f"{path}: {error}"
            continue
        if found != run:
            key = next(k for k in run if found.get(k) != run[k])
            raise ValueError(
                f"{path} is of another run ({key} is {found.get(key)!r} there, {run[key]!r} here): "
                "begin anew without resuming, or choose another folder"
            )
        return content
    if damaged:
        raise ValueError(f"{damaged}: begin anew without resuming, or choose another folder")
    return None
