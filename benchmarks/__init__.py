"""Comparisons with what one would take instead: `python -m benchmarks [job ...]`."""
