"""One thread, no display, small profile, property tests that are the same on every run."""

import os
import sys

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TUTORIAL_PROFILE", "smoke")

import jaxtyping
import pytest
import torch
from hypothesis import settings

from tutorial_lib import __main__ as command_line

torch.set_num_threads(1)
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tutorial_lib", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return run


@pytest.fixture
def unchecked():
    """As for users: without the run-time checks of shapes, so that the messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
