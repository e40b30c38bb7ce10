"""The training loop: what it computes, and that neither a kill nor a full disk loses anything."""

import errno
import math
import multiprocessing
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy_training as toy
from torch import nn

from tutorial_lib.training import fit
from tutorial_lib.training.loop import checkpoints
from tutorial_lib.training.state import parse, schedule

CONTEXT = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
# Imported once, not in each process that is killed; torch._dynamo is what optimizers import.
CONTEXT.set_forkserver_preload(["tutorial_lib.training", "torch._dynamo"])


def checkpoint(out):
    """The tensors of the newest checkpoint, and its facts but for the time taken."""
    state, facts = parse(checkpoints(out, "toy")[0].read_bytes())
    return state, {k: v for k, v in facts.items() if k != "seconds"}


def assert_same(out, other):
    (state, facts), (expected, expected_facts) = checkpoint(out), checkpoint(other)
    assert facts == expected_facts
    assert state.keys() == expected.keys()
    assert [k for k in state if not torch.equal(state[k], expected[k])] == []


def never(index):
    raise AssertionError("training has begun")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole")
    return out, toy.train(out)


# What is computed -----------------------------------------------------------------------------


def test_it_is_adam_with_clipping_and_a_moving_average(tmp_path):
    """Against the loop written out, for a network without randomness."""
    steps, ema = 50, 0.5
    recipe = toy.recipe(network=lambda: nn.Linear(4, 1), ema=ema, lr=0.1, clip=0.3)
    run = fit("toy", recipe, steps=steps, out=tmp_path, seed=3)
    torch.manual_seed(3)
    network = nn.Linear(4, 1)
    adam = torch.optim.Adam(network.parameters())
    losses, weights, norms = [], [], []
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.1 * schedule(step, steps)
        value = toy.loss(network, toy.batch(torch.arange(4 * step, 4 * step + 4)), step)
        adam.zero_grad()
        value.backward()
        norms.append(nn.utils.clip_grad_norm_(network.parameters(), 0.3).item())
        adam.step()
        losses.append(value.item())
        weights.append(network.weight.detach().clone())
    assert run.history["loss"] == losses
    assert min(norms) < 0.3 < max(norms)
    late = [ema ** (steps - 1 - s) for s in range(steps)]
    mean = sum(a * w for a, w in zip(late, weights, strict=True)) / sum(late)
    torch.testing.assert_close(run.network.weight.detach(), mean)
    assert (run.network.weight - weights[-1]).abs().max() > 1e-4


def test_history_record_and_origin(whole):
    _, run = whole
    history, record = run.history, run.record
    assert history["step"] == list(range(1, toy.STEPS + 1))
    assert history["lr"] == pytest.approx([1e-3 * schedule(s, toy.STEPS) for s in range(toy.STEPS)])
    assert history["validated"] == [*range(7, toy.STEPS, 7), toy.STEPS]
    assert len(history["minus_mse"]) == len(history["validated"])
    with torch.no_grad():
        assert toy.validate(run.network)["minus_mse"] == history["minus_mse"][-1]
    assert record["scores"] == {"minus_mse": history["minus_mse"][-1]}
    assert (record["parameters"], record["seed"], record["precision"]) == (65, 0, "fp32")
    seconds = 4 * toy.STEPS / record["samples_per_second"]
    assert record["seconds"] == pytest.approx(seconds, rel=1e-3, abs=0.051)  # kept to 0.1 s
    assert f"{toy.STEPS} steps" in run.origin
    assert record["hardware"] in run.origin
    assert not run.network.training


def test_the_schedule_rises_and_falls():
    rates = [schedule(s, 200) for s in range(200)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1]
    assert rates == [*rates[:3], *sorted(rates[3:], reverse=True)]
    assert rates[-1] == pytest.approx(0.01)
    assert schedule(0, 1) == 1


def test_the_seed_decides_and_the_reader_s_random_numbers_are_left_alone(tmp_path):
    before = torch.get_rng_state()
    runs = [
        fit("toy", toy.recipe(), steps=5, out=tmp_path / str(i), seed=seed).history["loss"]
        for i, seed in enumerate([0, 0, 1])
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1] != runs[2]


def test_autocast_has_an_effect_and_is_off_on_the_cpu(tmp_path):
    runs = {
        p: fit("toy", toy.recipe(), steps=5, out=tmp_path / p, precision=p)
        for p in ("auto", "fp32", "bf16")
    }
    losses = {p: torch.tensor(run.history["loss"]) for p, run in runs.items()}
    assert torch.equal(losses["auto"], losses["fp32"])
    assert 0 < (losses["bf16"] - losses["fp32"]).abs().max() < 0.1
    assert runs["bf16"].record["precision"] == "bf16"


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_after_a_loss_that_is_not_finite_it_goes_back_with_half_the_rate(tmp_path, broken):
    once = [True]

    def loss(network, batch, step):
        value = toy.loss(network, batch, step)
        if step == 23 and once:
            once.clear()
            return value * math.nan if broken == "loss" else value + (0 * value).sqrt()
        return value

    run = fit("toy", toy.recipe(loss=loss), steps=40, out=tmp_path, checkpoint_every=10)
    assert run.history["rollback"] == run.record["rollback"] == [24]
    assert run.history["lr"][18] == pytest.approx(1e-3 * schedule(18, 40))
    assert run.history["lr"][20] == pytest.approx(1e-3 * schedule(20, 40) / 2)
    assert all(map(math.isfinite, run.history["loss"]))
    assert all(p.isfinite().all() for p in run.network.parameters())


def test_it_gives_up_after_three_returns_and_keeps_the_last_checkpoint(tmp_path):
    def loss(network, batch, step):
        return toy.loss(network, batch, step) * (math.nan if step == 23 else 1)

    with pytest.raises(FloatingPointError, match=r"step 24, also after 3 returns to step 20"):
        fit("toy", toy.recipe(loss=loss), steps=40, out=tmp_path, checkpoint_every=10)
    state, facts = checkpoint(tmp_path)
    assert facts["step"] == 20
    assert all(t.isfinite().all() for t in state.values())


REFUSED = {
    "steps": ({"steps": 0}, {}, "steps 0"),
    "checkpoint_every": ({"checkpoint_every": 0}, {}, "checkpoint_every 0"),
    "seed": ({"seed": -1}, {}, "seed -1"),
    "precision": ({"precision": "fp16"}, {}, "precision 'fp16': allowed are 'auto'"),
    "batch_size": ({}, {"batch_size": 0}, "batch_size 0"),
    "lr": ({}, {"lr": 0.0}, "lr 0"),
    "clip": ({}, {"clip": -1.0}, "clip -1"),
    "ema": ({}, {"ema": 1.0}, "ema 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_numbers_out_of_range(tmp_path, case):
    keywords, changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        fit("toy", toy.recipe(**changes), **{"steps": 5, "out": tmp_path / "x", **keywords})
    assert not (tmp_path / "x").exists()


# Kills and damage -----------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_in_the_same_weights(whole, tmp_path):
    moments, kills = random.Random(0), 0
    while True:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=toy.train, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        try:
            for _ in range(moments.randint(3, 12)):  # one message a step
                ours.recv()
            process.join(timeout=moments.uniform(0, 0.02))
        except EOFError:  # the run has ended
            process.join()
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills >= 4
    assert_same(tmp_path, whole[0])


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("die", [("fsync", 3), ("fsync", 4), ("replace", 5), ("replace", 6)])
def test_killed_while_a_checkpoint_is_written(whole, tmp_path, die):
    """Before the content is on the disk, and before either of the two renamings."""
    process = CONTEXT.Process(target=toy.train, args=(tmp_path, None, die))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
    steps = toy.train(tmp_path).record["rollback"]
    assert steps == []
    assert_same(tmp_path, whole[0])
    assert [path for path in tmp_path.iterdir() if path not in checkpoints(tmp_path, "toy")] == []


def stop_after(steps):
    """A batch function that ends the run by an error."""

    def batch(index):
        if index[0] >= 4 * steps:
            raise InterruptedError
        return toy.batch(index)

    return batch


def interrupted(out, steps=30, **keywords):
    recipe = toy.recipe(batch=stop_after(steps))
    with pytest.raises(InterruptedError):
        fit("toy", recipe, steps=toy.STEPS, out=out, **{"checkpoint_every": 10, **keywords})


def test_a_damaged_checkpoint_is_passed_over_and_two_are_refused(tmp_path):
    settings = {"steps": toy.STEPS, "checkpoint_every": 10, "validate_every": 7}
    expected = fit("toy", toy.recipe(), out=tmp_path / "whole", **settings)
    out = tmp_path / "out"
    interrupted(out, validate_every=7)
    newest, previous = checkpoints(out, "toy")
    assert [parse(p.read_bytes())[1]["step"] for p in (newest, previous)] == [30, 20]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert fit("toy", toy.recipe(), out=out, **settings).history == expected.history
    assert_same(out, tmp_path / "whole")
    for path in checkpoints(out, "toy"):
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"damaged checkpoint .* begin anew without resuming"):
        fit("toy", toy.recipe(), out=out, **settings)
    assert fit("toy", toy.recipe(), out=out, resume=False, **settings).history == expected.history


@pytest.mark.parametrize(
    "changes", [{"steps": 61}, {"seed": 1}, {"config": {"width": 3}}, {"lr": 0.1}]
)
def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path, changes):
    interrupted(tmp_path)
    recipe = replace(toy.recipe(), lr=changes.pop("lr", 1e-3))
    with pytest.raises(ValueError, match="is of another run .* begin anew without resuming"):
        fit("toy", recipe, **{"steps": toy.STEPS, "out": tmp_path, **changes})


def test_beginning_anew_forgets_the_old_checkpoints_at_once(tmp_path):
    interrupted(tmp_path)
    interrupted(tmp_path, steps=5, resume=False)
    assert not any(path.exists() for path in checkpoints(tmp_path, "toy"))


def test_a_finished_run_is_loaded_not_trained(whole):
    out, run = whole
    again = fit("toy", toy.recipe(batch=never), steps=toy.STEPS, out=out)
    assert again.history == run.history
    assert again.record["seconds"] == pytest.approx(run.record["seconds"], abs=0.2)
    for key, value in run.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])


# Disk -------------------------------------------------------------------------------------------


def test_an_unwritable_folder_is_reported_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file.out cannot hold checkpoints of \d\.\d MB: Not a dir"):
        fit("toy", toy.recipe(batch=never), steps=5, out=tmp_path / "file/out")


def test_a_full_disk_is_reported_before_training(tmp_path):
    """On a disk of 512 kB, where the system lets us make one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only the superuser can mount a small disk")
    try:
        with pytest.raises(OSError, match="cannot hold checkpoints of .* No space left on device"):
            fit("toy", toy.recipe(batch=never), steps=5, out=tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_fills_during_the_run_costs_no_checkpoint(whole, tmp_path, monkeypatch):
    fsync, left = os.fsync, [25]

    def full(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        toy.train(tmp_path)
    steps = [parse(path.read_bytes())[1]["step"] for path in checkpoints(tmp_path, "toy")]
    assert steps == [24, 23]  # the first of the 25 was the trial before training
    monkeypatch.undo()
    toy.train(tmp_path)
    assert_same(tmp_path, whole[0])


# Several processes ---------------------------------------------------------------------------


def test_two_processes_give_the_curve_of_one(tmp_path):
    """The losses agree to 1e-5: a mean of two halves is not rounded as one mean.

    `accelerate launch --cpu --num_processes 2` starts one process only; two on a CPU need
    --multi_gpu with ACCELERATE_USE_CPU.
    """
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch = f"-m accelerate.commands.launch {flags} --dynamo_backend no --main_process_port 0"
    main = str(Path(__file__).with_name("recipes") / "__main__.py")
    words = "train toy --profile smoke --out".split()
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    curves = []
    for name, launcher in [("one", ""), ("two", launch)]:
        command = [sys.executable, *launcher.split(), main, *words, str(tmp_path / name)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("40 steps in") == 1
        assert (" 2 x " in run.stdout) == (name == "two")
        curves.append(checkpoint(tmp_path / name)[0])
    losses, other = (curve["losses"] for curve in curves)
    assert losses[-1] < losses[0] / 2
    torch.testing.assert_close(losses, other, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        curves[0]["network.weight"], curves[1]["network.weight"], rtol=1e-4, atol=1e-5
    )


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    from accelerate import PartialState

    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 3)
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared by 3 processes"):
        fit("toy", toy.recipe(), steps=5, out=tmp_path)
