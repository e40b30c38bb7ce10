"""Running a chapter: its size, its seeds, its device, and the training of its network."""

from .chapter import fit_or_load
from .loop import Recipe, Run, fit
from .profiles import PROFILES, profile, profile_name, start
from .weights import load_weights, save_weights, shipped

__all__ = [
    "PROFILES",
    "Recipe",
    "Run",
    "fit",
    "fit_or_load",
    "load_weights",
    "profile",
    "profile_name",
    "save_weights",
    "shipped",
    "start",
]
