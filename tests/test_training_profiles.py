"""Profiles and the chapters' set-up line."""

import numpy as np
import pytest
import torch

import tutorial_lib
from tutorial_lib.training import profile, profile_name, start

SIZES = {"smoke": {"steps": 8}, "cpu": {"steps": 600}, "full": {"steps": 40_000}}


@pytest.mark.parametrize("name", ["smoke", "cpu", "full"])
def test_the_environment_chooses(monkeypatch, name):
    monkeypatch.setenv("TUTORIAL_PROFILE", name)
    chosen = profile(**SIZES)
    assert (profile_name(), chosen.name, chosen.steps) == (name, name, SIZES[name]["steps"])
    assert str(chosen) == f"namespace(name='{name}', steps={chosen.steps})"


@pytest.mark.parametrize("value", [None, ""])
def test_cpu_by_default(monkeypatch, value):
    monkeypatch.delenv("TUTORIAL_PROFILE", raising=False)
    if value is not None:
        monkeypatch.setenv("TUTORIAL_PROFILE", value)
    assert profile(**SIZES).name == "cpu"


def test_refusals(monkeypatch):
    with pytest.raises(ValueError, match=r"full has \['steps'\], smoke has \['epochs'\]"):
        profile(**SIZES | {"smoke": {"epochs": 1}})
    with pytest.raises(ValueError, match="'name'"):
        profile(smoke={"name": 1}, cpu={"name": 1}, full={"name": 1})
    monkeypatch.setenv("TUTORIAL_PROFILE", "huge")
    with pytest.raises(ValueError, match="TUTORIAL_PROFILE='huge': allowed are smoke, cpu, full"):
        profile(**SIZES)


def test_start_prints_one_line_and_seeds(capsys):
    draws = []
    for _ in range(2):
        start(tutorial_lib.__version__)
        draws.append((torch.rand(()).item(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1]
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(
        f"tutorial_lib {tutorial_lib.__version__}, profile {profile_name()}, device "
    )
    assert line.endswith(f", torch {torch.__version__}")


def test_start_refuses_another_version():
    with pytest.raises(
        RuntimeError, match=r"needs tutorial_lib 9\.9\.9, and 0\.\d+\.\d+ is installed"
    ):
        start("9.9.9")
