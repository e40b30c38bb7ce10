"""A training of milliseconds for the tests of the loop; `train` also as a process to kill."""

import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

from tutorial_lib.training import Recipe, fit

STEPS = 60


def network() -> nn.Module:
    """With everything that a checkpoint must not forget: dropout, running means."""
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1)
    return nn.Sequential(*layers)


def batch(index: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.stack(
        [torch.randn(4, generator=torch.Generator().manual_seed(int(i))) for i in index]
    )
    return x, x[:, :1] * x[:, 1:2]


def loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
    return (network(batch[0]) - batch[1]).square().mean()


def validate(network: nn.Module) -> dict[str, float]:
    return {"minus_mse": -loss(network, batch(torch.arange(10**6, 10**6 + 32)), 0).item()}


def recipe(**changes) -> Recipe:
    return Recipe(**{"batch_size": 4, **dict(zip(KEYS, FUNCTIONS, strict=True)), **changes})


KEYS, FUNCTIONS = ("network", "batch", "loss", "validate"), (network, batch, loss, validate)


def train(out: Path, pipe=None, die: tuple[str, int] | None = None):
    """A run with a checkpoint after every step.

    Args:
        out: folder of the checkpoints.
        pipe: a connection that gets one message a step.
        die: ("fsync" or "replace", n): SIGKILL when that system call is made for the n-th time.
    """
    torch.set_num_threads(1)

    def told(index: Tensor) -> tuple[Tensor, Tensor]:
        if pipe:
            pipe.send(int(index[0]))
        return batch(index)

    if die:
        name, left = die
        call, count = getattr(os, name), [left]

        def deadly(*arguments, **keywords):
            count[0] -= 1
            if count[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        setattr(os, name, deadly)
    changed = recipe(batch=told)
    return fit("toy", changed, steps=STEPS, out=out, checkpoint_every=1, validate_every=7)
