"""One file per trained network: NAME.py is what `python -m tutorial_lib train NAME` trains.

Each has `PROFILES`, the settings at the three sizes with `steps` among them, and a function
`recipe` that takes the other settings by keyword. A denoiser has `denoise` besides: from a gray
image (h, w) and its noise level, or None to estimate it, to the image and the level used. A file
NAME.py beside a NAME_x.py holds what these share, and is not trained itself.
"""

import ast
import importlib
from pathlib import Path
from types import ModuleType


def names() -> dict[str, str]:
    """What can be trained: NAME and the first line of its file."""
    paths = sorted(p for folder in __path__ for p in Path(folder).glob("[!_]*.py"))
    stems = [p.stem for p in paths]
    paths = [p for p in paths if not any(stem.startswith(f"{p.stem}_") for stem in stems)]
    texts = {p.stem: ast.get_docstring(ast.parse(p.read_text("utf8"))) or "" for p in paths}
    return {name: text.partition("\n")[0] for name, text in texts.items()}


def find(name: str) -> ModuleType:
    """The module of one network.

    >>> find("resnet")
    Traceback (most recent call last):
    ValueError: unknown network 'resnet': known are ...
    """
    if name not in names():
        raise ValueError(f"unknown network {name!r}: known are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
