"""How large a run is: the profile that TUTORIAL_PROFILE names, and the chapters' set-up line."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import tutorial_lib

PROFILES = ("smoke", "cpu", "full")


def profile_name() -> str:
    """The profile in force: TUTORIAL_PROFILE, or "cpu" where it is not set.

    `smoke` proves in seconds that everything runs, `cpu` suits a laptop, `full` is the recorded
    run. A GPU chooses the device, never the profile.

    Raises:
        ValueError: TUTORIAL_PROFILE names none of the three.
    """
    name = os.environ.get("TUTORIAL_PROFILE") or "cpu"
    if name not in PROFILES:
        raise ValueError(f"TUTORIAL_PROFILE={name!r}: allowed are {', '.join(PROFILES)}")
    return name


def profile(*, smoke: dict[str, Any], cpu: dict[str, Any], full: dict[str, Any]) -> SimpleNamespace:
    """The settings of the profile in force, as attributes, with the profile's `name`.

    Args:
        smoke, cpu, full: the settings at the three sizes, with the same keys.

    Raises:
        ValueError: keys that differ, or a key `name`.

    >>> sizes = dict(smoke=dict(steps=8), cpu=dict(steps=600), full=dict(steps=40_000))
    >>> steps = profile(**sizes).steps  # 600 where TUTORIAL_PROFILE is not set
    >>> steps == sizes[profile_name()]["steps"]
    True
    """
    settings = {"smoke": smoke, "cpu": cpu, "full": full}
    for size, chosen in settings.items():
        if chosen.keys() != full.keys():
            raise ValueError(
                f"the profiles need the same keys: full has {sorted(full)}, "
                f"{size} has {sorted(chosen)}"
            )
    if "name" in full:
        raise ValueError("a profile's setting cannot be called 'name'")
    name = profile_name()
    return SimpleNamespace(name=name, **settings[name])


def start(version: str) -> None:
    """Begin a chapter: check the version, seed torch and numpy, set the figures' style.

    Prints one line: tutorial_lib 0.1.0, profile cpu, device cpu, torch 2.13.0.

    Args:
        version: the version of the package that the chapter was written with.

    Raises:
        RuntimeError: another version is installed.
    """
    if version != tutorial_lib.__version__:
        raise RuntimeError(
            f"this chapter needs tutorial_lib {version}, and {tutorial_lib.__version__} is "
            "installed: install the matching one, restart the kernel, and run from the top"
        )
    from tutorial_lib import plots  # here, so that profiles need no matplotlib

    name = profile_name()
    plots.style()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (for readers' own cells)
    mps = torch.backends.mps.is_available()
    device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    print(f"tutorial_lib {version}, profile {name}, device {device}, torch {torch.__version__}")
