"""One thread, no display, small profile, and property tests that are the same on every run."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TUTORIAL_PROFILE", "smoke")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")
