"""What is told about a training: where, with what, how long, how well."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tutorial_lib

PACKAGE = Path(tutorial_lib.__file__).parent


def machine(device: torch.device) -> str:
    """What a run was made on: the processor with its cores, or the graphics card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Of Python, of this package with its git commit if there is one, and of what computes."""
    libraries = {k: importlib.metadata.version(k) for k in ("torch", "accelerate", "numpy")}
    versions = {"python": platform.python_version(), "tutorial_lib": tutorial_lib.__version__}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True)
    except OSError:  # no git
        return versions | libraries
    inside = run.returncode == 0 and (PACKAGE.parent / ".git").exists()
    return versions | ({"commit": run.stdout.strip()} if inside else {}) | libraries


def thin(values: list, *, points: int = 200) -> list[float]:
    """At most `points` means of successive values, with six digits.

    >>> thin([1.0, 3.0, 5.0, 7.0], points=2)
    [2.0, 6.0]
    """
    parts = np.array_split(np.asarray(values, float), min(points, len(values)) or 1)
    return [float(f"{part.mean():.6g}") for part in parts if part.size]


def describe(record: dict[str, Any]) -> str:
    """A record in one line: steps, time, hardware, score, commit."""
    seconds = record["seconds"]
    unit = min(
        (u for u in ((1, "s"), (60, "min"), (3600, "h")) if seconds < 100 * u[0]),
        default=(3600, "h"),
    )
    score = next((f", {k} {v:.4g}" for k, v in record["scores"].items()), "")
    commit = (
        f", commit {record['versions']['commit'][:8]}" if "commit" in record["versions"] else ""
    )
    return (
        f"{record['steps']} steps in {seconds / unit[0]:.3g} {unit[1]} on {record['hardware']}"
        f"{score}{commit}"
    )
