"""The notebooks are their chapters, byte for byte, and every chapter follows the template."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import tutorial_lib

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/sparsity-meets-deep-networks/book"
COLAB = "https://colab.research.google.com/github/sparsity-meets-deep-networks/book/blob/main/"
PAGES = "https://sparsity-meets-deep-networks.github.io/book/"
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.md"))
HEADINGS = ["See it first", "What breaks", "Summary", "Exercises", "References"]
SETUP = f"""\
import sys

if "google.colab" in sys.modules:  # keep the torch and numpy that Colab brings, add the rest
    !pip list --format=freeze | grep -E "^(torch|numpy)==" > keep.txt
    %pip install -q -c keep.txt "git+{REPOSITORY}@v{tutorial_lib.__version__}"

from tutorial_lib.training import start

start("{tutorial_lib.__version__}")"""

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def notebook(chapter):
    return nbformat.read(ROOT / "notebooks" / f"{chapter.stem}.ipynb", as_version=4)


def prose(chapter):
    """The Markdown of a chapter without its code."""
    cells = [c.source for c in notebook(chapter).cells if c.cell_type == "markdown"]
    return re.sub(r"^```.*?^```", "(code)", "\n\n".join(cells), flags=re.DOTALL | re.MULTILINE)


def headings(chapter):
    return re.findall(r"^## (.+)$", prose(chapter), re.MULTILINE)


def make_notebooks(root, *args):
    script = root / "book" / "make_notebooks.py"
    return subprocess.run([sys.executable, script, *args], capture_output=True, text=True)


def test_regenerating_changes_no_byte():
    done = make_notebooks(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_generator_is_deterministic_and_names_what_is_stale(tmp_path):
    chapters = tmp_path / "book" / "chapters"
    chapters.mkdir(parents=True)
    script = tmp_path / "book" / "make_notebooks.py"
    script.write_text((ROOT / "book" / "make_notebooks.py").read_text("utf8"), "utf8")
    cell = "```{code-cell} ipython3\nx = 1\n```\n\n"
    (chapters / "01_a.md").write_text(f"# A\n\n{cell}{cell}text $a_b$\n", "utf8")

    assert make_notebooks(tmp_path, "--check").returncode == 1
    assert make_notebooks(tmp_path).returncode == 0
    out = tmp_path / "notebooks" / "01_a.ipynb"
    first = out.read_bytes()
    out.unlink()
    make_notebooks(tmp_path)
    assert out.read_bytes() == first
    cells = nbformat.read(out, as_version=4).cells
    assert [c.cell_type for c in cells] == ["markdown", "code", "code", "markdown"]
    assert len({c.id for c in cells}) == 4, "two cells of the same text need two ids"

    (chapters / "01_a.md").write_text(f"# A\n\n{cell}{cell}text $a_c$\n", "utf8")
    stale = make_notebooks(tmp_path, "--check")
    assert stale.returncode == 1
    assert "notebooks/01_a.ipynb" in stale.stdout.replace("\\", "/")
    assert out.read_bytes() == first, "--check must not write"
    make_notebooks(tmp_path)
    after = nbformat.read(out, as_version=4).cells
    assert [c.id for c in after[:3]] == [c.id for c in cells[:3]], (
        "an edit changes its own cell only"
    )

    (chapters / "01_a.md").rename(chapters / "02_b.md")
    make_notebooks(tmp_path)
    assert [p.name for p in (tmp_path / "notebooks").iterdir()] == ["02_b.ipynb"]


def test_chapters_are_those_of_the_table_of_contents():
    toc = re.findall(r"file: notebooks/(\w+)", (ROOT / "_toc.yml").read_text("utf8"))
    assert toc == [chapter.stem for chapter in CHAPTERS]
    assert toc, "no chapters"


@each_chapter
def test_no_outputs(chapter):
    for cell in notebook(chapter).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each_chapter
def test_head(chapter):
    cells = notebook(chapter).cells
    title, question, badges, card = cells[0].source.split("\n\n", 3)
    assert re.fullmatch(r"# [^\d\n].*", title)
    assert re.fullmatch(r"\*\*.*\?\*\*", question, re.DOTALL)
    name = f"notebooks/{chapter.stem}.ipynb"
    assert re.findall(r"\]\((.*?)\)", badges) == [f"{COLAB}{name}", f"{PAGES}_sources/{name}"]
    assert (ROOT / name).is_file()
    rows = re.findall(r"^\| (\w.*?) \|", card, re.MULTILINE)
    assert rows == ["You will be able to", "You need", "Time"]
    code = next(cell for cell in cells if cell.cell_type == "code")
    assert code.source == SETUP
    assert "hide-input" in code.metadata.tags


@each_chapter
def test_headings_in_order(chapter):
    text = prose(chapter)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    found = headings(chapter)
    assert found[0] == HEADINGS[0]
    assert found[-4:] == HEADINGS[-4:]
    assert len(found) > len(HEADINGS), "no section between 'See it first' and 'What breaks'"


@each_chapter
def test_summary_has_five_bullets(chapter):
    summary = prose(chapter).split("\n## Summary\n")[1].split("\n## ")[0]
    assert len(re.findall(r"^[-*] ", summary, re.MULTILINE)) == 5


@each_chapter
def test_exercises_with_folded_solutions(chapter):
    part = prose(chapter).split("\n## Exercises\n")[1].split("\n## ")[0]
    starts = list(re.finditer(r"^\*\*(\d+) \((\w+)\)\.\*\*", part, re.MULTILINE))
    assert [int(m[1]) for m in starts] == list(range(1, len(starts) + 1))
    assert len(starts) >= 5
    assert len({m[2] for m in starts}) >= 3, "three levels"
    ends = [m.start() for m in starts[1:]] + [len(part)]
    for start, end in zip(starts, ends, strict=True):
        exercise = part[start.start() : end]
        assert "*Expected:" in exercise, start[0]
        # Empty lines around the solution: what is between them is then read as Markdown.
        assert re.search(
            r"\n\n<details><summary>Solution</summary>\n\n.+\n\n</details>", exercise, re.DOTALL
        ), start[0]
        assert exercise.count("<details>") == 1, start[0]


@each_chapter
def test_every_picture_has_alt_text(chapter):
    for text in re.findall(r"!\[(.*?)\]\(", prose(chapter)):
        assert text.strip()
    for cell in notebook(chapter).cells:
        image = cell.metadata.get("mystnb", {}).get("image")
        assert image is None or image.get("alt", "").strip(), cell.source


@each_chapter
def test_reads_well_in_colab(chapter):
    """No syntax that only Sphinx knows, except {cite} at the head of a reference."""
    body, references = prose(chapter).rsplit("\n## References\n", 1)
    assert not re.findall(r"^:::|^\(\w+\)=$|\{\w+(?::\w+)?\}`", body, re.MULTILINE)
    assert "{cite}`" in references
    assert not re.search(r"\\begin\{(align|equation)\*?\}", body, re.MULTILINE), (
        "use $$ and aligned"
    )
    for own in re.findall(rf"{re.escape(REPOSITORY)}/blob/main/([\w/.-]+)", body):
        assert (ROOT / own).exists(), own


@each_chapter
def test_citations_are_in_the_bibliography(chapter):
    keys = set(
        re.findall(
            r"^@\w+\{([^,\s]+),", (ROOT / "book/references.bib").read_text("utf8"), re.MULTILINE
        )
    )
    for cited in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(chapter)):
        assert set(cited.replace(" ", "").split(",")) <= keys
