"""What the book adds to Sphinx.

Notebooks run side by side, a version table, tags on many-line formulas, plain docstrings.
"""

import asyncio
import os
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.parsers.rst import Directive
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util.display import status_iterator

from tutorial_lib import __version__

PACKAGES = ("torch", "numpy", "scipy", "PyWavelets", "scikit-image", "matplotlib", "jupyter-book")


def run_notebooks(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Run every notebook that is to be read, one on each core, and cache it for myst-nb.

    By itself myst-nb runs them one after the other. Nothing old is taken from the cache: what is
    read has just been run. The first failure ends the build.
    """
    config = env.mystnb_config

    def run(name: str) -> CacheBundleIn:
        path = Path(env.doc2path(name))
        nb = nbformat.read(path, as_version=4)
        options = {"timeout": config.execution_timeout, "record_timing": False}
        client = NotebookClient(nb, resources={"metadata": {"path": path.parent}}, **options)
        try:
            asyncio.run(client.async_execute())
        except Exception as error:
            raise SphinxError(f"{path} failed: {error}") from error
        return CacheBundleIn(nb, str(path))

    cache = get_cache(config.execution_cache_path)
    names = [name for name in sorted(docnames) if env.doc2path(name).endswith(".ipynb")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(run, names)
        note = {"length": len(names), "stringify_func": lambda bundle: Path(bundle.uri).name}
        for bundle in status_iterator(done, "running notebooks... ", **note):
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


class Versions(Directive):
    """``{versions}``: what this build of the book ran with."""

    def run(self) -> list[nodes.Node]:
        rows = {
            "profile": os.environ.get("TUTORIAL_PROFILE", "cpu"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "Python": platform.python_version(),
            "tutorial_lib": __version__,
            **{name: version(name) for name in PACKAGES},
        }
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in range(2)), cols=2)
        group += nodes.tbody("", *(_row(*row) for row in rows.items()))
        return [nodes.table("", group)]


def _row(*cells: str) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", nodes.Text(c))) for c in cells))


def keep_tags(app: Sphinx, doctree: nodes.document) -> None:
    r"""Let a many-line formula carry a \tag, which the split environment of Sphinx forbids."""
    for node in doctree.findall(nodes.math_block):
        text = node.astext()
        if r"\tag" in text and r"\\" in text:
            node["nowrap"] = True
            node.children = [nodes.Text(rf"\[{text}\]")]


def escape_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Escape *, | and a trailing _ in plain text, so that docstrings may write ||x||_1, *batch."""
    math_indent = None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if math_indent is not None and line.strip() and indent <= math_indent:
            math_indent = None
        if line.lstrip().startswith(".. math::"):
            math_indent = indent
        if math_indent is None and not line.lstrip().startswith((">>>", "...", "..")):
            parts = re.split(r"(:math:`[^`]*`|``.*?``|`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|\\]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def skip_fields(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object):
    """Leave out "Alias for field number 0": the fields of a named tuple are in its docstring."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("versions", Versions)
    app.connect("env-before-read-docs", run_notebooks)
    app.connect("doctree-read", keep_tags)
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True}
