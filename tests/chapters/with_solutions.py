"""Copy the notebooks with their folded solutions as cells, so that running the copies tests both.

python tests/chapters/with_solutions.py OUT    (then: pytest --nbmake OUT)
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
DETAILS = re.compile(r"<details>.*?</details>", re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def solutions(markdown: str) -> list[str]:
    """The code of the folded solutions in a Markdown cell, in order.

    >>> fence = "```"
    >>> solutions(f"<details>\\n{fence}python\\nx = 1\\n{fence}\\n</details>")
    ['x = 1']
    """
    return [code.strip() for block in DETAILS.findall(markdown) for code in CODE.findall(block)]


def with_solutions(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    cells = []
    for cell in nb.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cells += [
                nbformat.v4.new_code_cell(code, id=f"{cell.id}-{i}")
                for i, code in enumerate(solutions(cell.source))
            ]
    nb.cells = cells
    return nb


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(with_solutions(nbformat.read(path, as_version=4)), out / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
