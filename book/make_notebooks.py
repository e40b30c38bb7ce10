"""Write notebooks/NN_topic.ipynb from book/chapters/NN_topic.md (run by `make notebooks`).

A notebook is a function of its chapter alone: no outputs, no dates, and each cell's id is a hash of
its text, so that regenerating changes no byte. --check writes nothing and names what is stale.
"""

import argparse
import hashlib
from collections import Counter
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook(chapter: Path) -> str:
    """The text of the notebook of a chapter."""
    nb = jupytext.read(chapter, fmt="md:myst")
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    seen = Counter()
    for cell in nb.cells:
        text = cell.cell_type + cell.source
        seen[text] += 1  # cells of the same text are told apart by their order
        cell["id"] = hashlib.sha256(f"{seen[text]}{text}".encode()).hexdigest()[:12]
    nbformat.validate(nb)
    return nbformat.writes(nb) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 if any is stale"
    )
    check = parser.parse_args().check
    wanted = {
        ROOT / "notebooks" / f"{chapter.stem}.ipynb": notebook(chapter)
        for chapter in sorted((ROOT / "book" / "chapters").glob("*.md"))
    }
    (ROOT / "notebooks").mkdir(exist_ok=True)
    present = set((ROOT / "notebooks").glob("*.ipynb"))
    stale = [p for p, text in wanted.items() if p not in present or p.read_text("utf8") != text]
    stale += sorted(present - set(wanted))
    for path in stale:
        if not check and path in wanted:
            path.write_text(wanted[path], encoding="utf8", newline="\n")
        elif not check:
            path.unlink()
        change = "stale" if check else "written" if path in wanted else "removed"
        print(f"{path.relative_to(ROOT)}: {change}")
    if check and stale:
        print("Run `make notebooks`.")
        return 1
    print(f"{len(wanted)} notebooks are up to date.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
