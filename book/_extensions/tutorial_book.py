"""What the book adds to Sphinx: a version table, tags on many-line formulas, plain docstrings."""

import os
import platform
import re
from importlib.metadata import version

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from tutorial_lib import __version__

PACKAGES = ("torch", "numpy", "scipy", "PyWavelets", "scikit-image", "matplotlib", "jupyter-book")


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
    app.connect("doctree-read", keep_tags)
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True}
