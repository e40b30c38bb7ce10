"""Imports point one way, and the repository stays light."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "tutorial_lib"
ABOVE = ("networks", "data", "training", "weights", "metrics", "plots", "__init__", "__main__")
UPWARDS = {  # what a module of this kind must not import
    "mathematics": {"networks", "data", "training", "plots", "metrics", "weights", "__main__"},
    "networks": {"training", "plots", "weights", "__main__"},
    "data": {"networks", "training", "__main__"},
    "training": {"__main__"},
}


def imported(source: str, package: str) -> set[str]:
    """The modules of tutorial_lib that a source text of the given package imports.

    >>> text = "import tutorial_lib.data.images; from . import plots; from .prox import prox_l1"
    >>> sorted(imported(text, "tutorial_lib"))
    ['data', 'plots', 'prox']
    >>> text = "from tutorial_lib import networks; from ..data import x"
    >>> sorted(imported(text, "tutorial_lib.training"))
    ['data', 'networks']
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return {n.split(".")[1] for n in names if n.startswith("tutorial_lib.")}


def kind(path: Path) -> str:
    first = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    return first if first in ABOVE else "mathematics"


MODULES = [p for p in sorted(LIBRARY.rglob("*.py")) if kind(p) in UPWARDS]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_imports_point_one_way(path):
    package = ".".join(path.relative_to(ROOT).parent.parts)
    upwards = imported(path.read_text("utf8"), package) & UPWARDS[kind(path)]
    assert not upwards, f"{path.relative_to(ROOT)} imports {sorted(upwards)}"


def test_no_large_files():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    large = {
        p.name: p.stat().st_size for p in files if p.is_file() and p.stat().st_size > 5_000_000
    }
    assert not large
