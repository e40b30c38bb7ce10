"""Running a chapter: its size, its seeds, its device."""

from .profiles import PROFILES, profile, profile_name, start

__all__ = ["PROFILES", "profile", "profile_name", "start"]
