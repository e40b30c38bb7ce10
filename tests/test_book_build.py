"""The notebooks of the book: run several at a time, what myst-nb finds, failures that stop it."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_cache import get_cache
from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def extension():
    path = ROOT / "book" / "_extensions" / "tutorial_book.py"
    spec = importlib.util.spec_from_file_location("tutorial_book", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def book(folder, **cells):
    """An environment of Sphinx with one notebook of one cell for each name."""
    for name, source in cells.items():
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(nb, folder / f"{name}.ipynb")
    suffix = dict.fromkeys(cells, ".ipynb")
    config = SimpleNamespace(execution_cache_path=str(folder / "cache"), execution_timeout=60)
    return SimpleNamespace(
        mystnb_config=config, doc2path=lambda name: str(folder / (name + suffix.get(name, ".md")))
    )


def test_outputs_lie_where_myst_nb_looks_for_them(extension, tmp_path):
    env = book(tmp_path, one="print(1)", two="print(2)")
    extension.run_notebooks(None, env, ["two", "one", "text"])
    cache = get_cache(env.mystnb_config.execution_cache_path)
    for name, printed in (("one", "1\n"), ("two", "2\n")):
        nb = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        assert nb.cells[0].outputs == []
        assert cache.merge_match_into_notebook(nb)[1].cells[0].outputs[0].text == printed


def test_a_notebook_that_fails_stops_the_build(extension, tmp_path):
    env = book(tmp_path, good="x = 1", bad="assert 1 == 2, 'no'")
    with pytest.raises(SphinxError, match=r"(?s)bad\.ipynb failed.*assert 1 == 2.*no"):
        extension.run_notebooks(None, env, ["bad", "good"])
