"""A run in progress: one step, a validation, and a checkpoint of everything as bytes."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import safetensors.torch
import torch
from accelerate import PartialState
from accelerate.utils import reduce, send_to_device
from torch import Tensor, nn

from .record import describe, machine, thin, versions
from .weights import fill, tensors

ATTEMPTS = 3  # with half the learning rate each, after a loss that is not finite
FACTS = ("step", "seconds", "scores", "rollback")  # of a run, beside its tensors


@dataclass(frozen=True)
class Recipe:
    """What is trained: a network, its data, its loss and its score.

    Attributes:
        network: builds the network; called once, under the seed of the run.
        batch: from global sample numbers (b,), int64, to a batch on the CPU: a tensor, or a tuple
            of tensors. Every random draw (crop, flip, noise) must depend on the number alone, so
            that any number of processes trains on the same data.
        loss: of (network, batch, step), a mean over the samples of the batch.
        validate: scores of a network, the first one the larger the better; called in evaluation
            mode without gradients. Tensors belong on the device of the network's parameters.
        batch_size: samples of a step, of all processes together.
        lr: largest learning rate of Adam: it rises over the first 2 % of the steps and falls to a
            hundredth along a cosine.
        clip: largest Euclidean norm of the gradient; inf for none.
        ema: the network that is validated and returned is an exponential moving average over
            1 / (1 - ema) steps, but over no more than a twentieth of the run; 0 for none.
        data: a few words on what it is trained with, for the record.
    """

    network: Callable[[], nn.Module]
    batch: Callable[[Tensor], Any]
    loss: Callable[[nn.Module, Any, int], Tensor]
    validate: Callable[[nn.Module], dict[str, float]]
    batch_size: int = 32
    lr: float = 1e-3
    clip: float = 1.0
    ema: float = 0.999
    data: str = ""


class Run(NamedTuple):
    """A trained network, on the CPU and in evaluation mode, and where it comes from.

    `history` has lists of equal length `step`, `loss`, `lr`, further lists of equal length
    `validated` (the step) and one per score, and `rollback` with the steps at which the loss was
    no longer finite.
    """

    network: nn.Module
    origin: str
    record: dict[str, Any]
    history: dict[str, list]


class Training:
    """The state of a run: everything that a checkpoint holds."""

    def __init__(
        self, recipe: Recipe, run: dict[str, Any], precision: str, world: PartialState
    ) -> None:
        self.recipe, self.run, self.world, self.device = recipe, run, world, world.device
        cuda = self.device.type == "cuda"
        bf16 = (
            cuda and torch.cuda.is_bf16_supported() if precision == "auto" else precision == "bf16"
        )
        self.precision = "bf16" if bf16 else "fp32"
        torch.manual_seed(run["seed"])
        layout = torch.channels_last if cuda else torch.preserve_format
        self.network = recipe.network().to(self.device, memory_format=layout).train()
        self.average = copy.deepcopy(self.network).eval()
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.averages = [p for p in self.average.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.lr, fused=cuda)
        self.losses = torch.zeros(run["steps"], device=self.device)
        self.rates = torch.zeros(run["steps"])
        self.step, self.seconds, self.clock = 0, 0.0, time.perf_counter()
        self.scores: dict[str, list] = {"validated": []}
        self.rollback: list[int] = []

    def take(self, step: int, batch: Any) -> None:
        """One step of Adam."""
        steps, draws = self.run["steps"], self.run["seed"] * 1_000_003 + step
        # Of dropout: none is stored. The generator takes the low 32 bits of what it is given.
        torch.manual_seed(draws * self.world.num_processes + self.world.process_index)
        rate = self.recipe.lr * schedule(step, steps) / 2 ** len(self.rollback)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        batch = send_to_device(batch, self.device, non_blocking=True)
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = self.recipe.loss(self.network, batch, step)
        loss.backward()
        loss = self._mean_over_processes(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()
        self.losses[step] = loss + 0 * norm  # not finite either where the gradient is not
        self.rates[step] = rate
        weight = max(1 - self.recipe.ema, min(1, 20 / steps))
        weight = weight / (1 - (1 - weight) ** (step + 1))  # no bias towards the initial weights
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, weight)

    def _mean_over_processes(self, loss: Tensor) -> Tensor:
        """Replace the gradients by their mean over the processes; returns the mean loss."""
        if self.world.num_processes == 1:
            return loss
        for p in self.parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        flat = torch.cat([p.grad.flatten() for p in self.parameters] + [loss.reshape(1)])
        *means, loss = reduce(flat, "mean").split([p.numel() for p in self.parameters] + [1])
        for p, mean in zip(self.parameters, means, strict=True):
            p.grad.copy_(mean.view_as(p))
        return loss[0]

    @torch.no_grad()
    def validate(self) -> None:
        for own, source in zip(self.average.buffers(), self.network.buffers(), strict=True):
            own.copy_(source)
        self.scores["validated"].append(self.step)
        for key, value in self.recipe.validate(self.average).items():
            self.scores.setdefault(key, []).append(float(value))

    def go_back(self, good: bytes, done: int) -> None:
        """To the checkpoint `good`, to continue with half the learning rate."""
        bad = int((~self.losses[:done].isfinite()).nonzero()[0]) + 1
        rollback, seconds = [*self.rollback, bad], self.spent()
        self.unpack(good)
        self.rollback, self.seconds = rollback, seconds
        if len(rollback) > ATTEMPTS:
            raise FloatingPointError(
                f"{self.run['name']}: the loss is not finite at step {bad}, also after {ATTEMPTS} "
                f"returns to step {self.step} with half the learning rate each; "
                f"the checkpoint of step {self.step} is kept"
            )

    def spent(self) -> float:
        """Seconds of training so far, also before a resume; sets the clock anew."""
        before, self.clock = self.clock, time.perf_counter()
        return self.seconds + self.clock - before

    def size(self) -> int:
        """Bytes of a checkpoint, at most."""
        numbers = [*tensors(self.network).values(), self.losses]
        return 4 * sum(t.nbytes for t in numbers) + 2**18

    def pack(self) -> bytes:
        """The checkpoint, as the content of one safetensors file."""
        adam = self.optimizer.state_dict()["state"]
        state = {f"network.{k}": v for k, v in tensors(self.network).items()}
        state |= {f"average.{k}": v for k, v in tensors(self.average).items()}
        state |= {f"adam.{i}.{k}": v for i, s in adam.items() for k, v in s.items()}
        state |= {"losses": self.losses, "rates": self.rates}
        self.seconds = self.spent()
        facts = {"run": self.run} | {key: getattr(self, key) for key in FACTS}
        state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        return safetensors.torch.save(state, {"facts": json.dumps(facts)})

    def unpack(self, content: bytes) -> None:
        state, facts = parse(content)
        for part, network in (("network.", self.network), ("average.", self.average)):
            own = {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
            fill(network, own, source="the checkpoint")
        adam: dict[int, dict[str, Tensor]] = {}
        for key in (k for k in state if k.startswith("adam.")):
            _, i, name = key.split(".")
            p, value = self.parameters[int(i)], state[key]  # laid out in memory as the parameter
            value = torch.empty_like(p).copy_(value) if value.shape == p.shape else value
            adam.setdefault(int(i), {})[name] = value.detach()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})
        self.losses.copy_(state["losses"])
        self.rates.copy_(state["rates"])
        for key in FACTS:
            setattr(self, key, facts[key])
        self.clock = time.perf_counter()

    def line(self) -> str:
        """For the progress bar."""
        key = next((k for k in self.scores if k != "validated"), None)
        score = f", {key} {self.scores[key][-1]:.4g}" if key else ""
        return f"loss {self.losses[max(0, self.step - 10) : self.step].mean():.4g}{score}"

    def result(self) -> Run:
        steps = self.run["steps"]
        history = {"step": list(range(1, steps + 1)), "loss": self.losses.tolist()}
        history |= {"lr": self.rates.tolist(), **self.scores, "rollback": self.rollback}
        place = machine(self.device)
        place = f"{self.world.num_processes} x {place}" if self.world.num_processes > 1 else place
        record = self.run | {
            "precision": self.precision,
            "parameters": sum(p.numel() for p in self.parameters),
            "seconds": round(self.seconds, 1),
            "samples_per_second": float(f"{steps * self.recipe.batch_size / self.seconds:.4g}"),
            "hardware": place,
            "versions": versions(),
            "scores": {k: v[-1] for k, v in self.scores.items() if k != "validated"},
            "curves": {k: thin(v) for k, v in history.items() if k != "rollback"},
            "rollback": self.rollback,
        }
        return Run(self.average.cpu(), f"trained here: {describe(record)}", record, history)


def schedule(step: int, steps: int) -> float:
    """The learning rate at a step, as a part of the largest one.

    >>> [round(schedule(step, 100), 3) for step in (0, 1, 50, 99)]
    [0.5, 1.0, 0.505, 0.01]
    """
    rise = max(1, round(0.02 * steps))
    if step < rise:
        return (step + 1) / rise
    fall = (step + 1 - rise) / (steps - rise)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * fall)) / 2


def parse(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a checkpoint. Raises ValueError where it is damaged."""
    try:
        state = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["facts"])
    except Exception as error:  # a damaged file fails in every way
        raise ValueError(f"damaged checkpoint ({error or type(error).__name__})") from error
    return state, facts
