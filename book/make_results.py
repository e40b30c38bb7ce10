"""Write book/results.md from the records in tutorial_lib/weights (run by `make notebooks`).

Every number on the page is read from the record of a training or of a benchmark; none is typed.
--check writes nothing and exits with 1 if the page is stale.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tutorial_lib.training import load_weights
from tutorial_lib.training.recipes import names

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "tutorial_lib" / "weights"
PAGE = ROOT / "book" / "results.md"
WITHOUT_RECIPE = {"coupled": "10_coupled_dictionaries"}  # made by a benchmark, name and scale
CHAPTER_OF = {  # of the recorded tables
    "deblurring": "08_plug_and_play",
    "super_resolution": "10_coupled_dictionaries",
    "coupled_ista": "13_coupled_ista",
    "xray_model": "15_xray_model",
    "xray_networks": "16_xray_network",
    "hyperspectral": "19_hyperspectral_noise",
    "decsc_tables": "20_decsc",
    "side_by_side": "21_side_by_side",
}
HEAD = """\
# Results

Every number here is copied by a program, `book/make_results.py`, from the record that a training or
a benchmark has left beside the weights of the package; none is typed. A test fails when the page
and the records differ.

Times of training are those of the machine that stands beside them. Times of methods are seconds of
one processor, on a machine that did other things too: only their ratios mean something.
"""
TAIL = """\
## Run times and versions

Every chapter is executed from its first cell to its last whenever the book is built; a cell that
fails, or a warning, stops the build. The times below are those of the build that wrote this page.

```{nb-exec-table}
```

It ran with

```{versions}
```

The chapters run on the CPU; the size of a computation is set by the profile
(see [how to run](how_to_run.md)).
"""


def link(chapter: str) -> str:
    """To the page of a chapter, its number as text; without a link until the page is there."""
    number = str(int(chapter[:2]))
    there = (ROOT / "book" / "chapters" / f"{chapter}.md").is_file()
    return f"[{number}](../notebooks/{chapter}.ipynb)" if there else number


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    rows = [list(row) for row in rows]
    numbers = [all(re.match(r"[-\d.,]*$", row[i]) for row in rows) for i in range(len(head))]
    lines = [head, ["---:" if number else "---" for number in numbers], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    units = ((100, 1, "s"), (6000, 60, "min"), (float("inf"), 3600, "h"))
    _, size, unit = next(row for row in units if seconds < row[0])
    return f"{seconds / size:.3g} {unit}"


def number(value: Any, digits: int = 2) -> str:
    """With as many digits after the point; an integer as it is, nothing for what is missing."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


# Networks ----------------------------------------------------------------------------------------


def chapter_of(name: str) -> str:
    """The chapter that trains a network, as its recipe names it: 07_winnet."""
    found = re.search(r"\(chapter (\d\d_\w+)\)", names().get(name, ""))
    chapter = found[1] if found else WITHOUT_RECIPE.get(name.rstrip("0123456789"))
    if chapter is None:
        raise ValueError(f"no chapter is known for the weights {name!r}")
    return chapter


def networks(records: dict[str, dict]) -> str:
    """Every trained network, by chapter."""
    rows = []
    for name, record in records.items():
        size = record.get("parameters") or sum(t.numel() for t in load_weights(name)[0].values())
        metric, value = next(iter(record["scores"].items()))
        if metric.startswith("minus_"):  # trainings look for the largest
            metric, value = metric.removeprefix("minus_"), -value
        row = [f"`{name}`", link(chapter_of(name)), number(size), record["data"]]
        row += [number(record["steps"]), duration(record["seconds"]), record["hardware"]]
        rows.append((chapter_of(name), [*row, f"{metric.replace('_', ' ')} {value:.4g}"]))
    head = ["name", "chapter", "parameters", "trained on", "steps", "time", "hardware", "score"]
    text = table(head, [row for _, row in sorted(rows, key=lambda pair: pair[0])])
    return f"""## Trained networks

The score is the first of those that the training measured to validate, on pictures or signals of
its own: PSNR and NMSE in dB, RMSE over that of bicubic interpolation or in the unit of the chapter,
bits per dimension, likelihood in nats. Only trainings of one chapter can be compared by it.
`python -m tutorial_lib evaluate` measures on your own files.

{text}"""


# Recorded tables ---------------------------------------------------------------------------------


def deblurring(record: dict) -> str:
    """PSNR over kernels: a method a row, a photograph a column."""
    rows = []
    for part in ("classical", "learned"):
        for method in record[part][0]:
            if method != "steps":
                columns = zip(*(kernel[method] for kernel in record[part]), strict=True)
                means = [fmean(column) for column in columns]
                rows.append([method, *map(number, [*means, fmean(means)])])
    text = table(["method", *record["photographs"], "mean"], rows)
    kernels = len(record["classical"])
    return f"Deblurring: PSNR in dB, mean over {kernels} kernels, noise of 1 %.\n\n{text}"


def super_resolution(record: dict) -> str:
    """PSNR: a scale and a method a row."""
    scales = {key: value for key, value in record.items() if key.isdigit()}
    pictures = list(next(iter(next(iter(scales.values())).values())))
    rows = [
        [scale, method, *map(number, [*found.values(), fmean(found.values())])]
        for scale, methods in scales.items()
        for method, found in methods.items()
    ]
    text = table(["scale", "method", *pictures, "mean"], rows)
    return f"Super-resolution of {record['set']} with coupled dictionaries: PSNR in dB.\n\n{text}"


def coupled_ista(record: dict) -> str:
    """Errors: a task and a scene a row."""
    scenes = [found for task in record["tables"].values() for found in task.values()]
    methods = list(dict.fromkeys(method for found in scenes for method in found))
    rows = [
        [task, scene, *(number(found.get(method)) for method in methods)]
        for task, scenes in record["tables"].items()
        for scene, found in scenes.items()
    ]
    text = table(["task", "scene", *methods], rows)
    return f"Guided super-resolution: {record['unit']}.\n\n{text}"


def errors(rows: dict[str, dict[str, Any]]) -> str:
    """A mixture a row, a method a column."""
    methods = list(dict.fromkeys(m for found in rows.values() for m in found))
    text = [[name, *(found.get(m, "") for m in methods)] for name, found in rows.items()]
    return table(["mixture", *methods], text)


def xray_model(record: dict) -> str:
    """Mean squared errors times 1000."""
    rows = {
        name: {method: number(scores[0], 3) for method, scores in found.items()}
        for name, found in record["methods"].items()
    }
    return (
        "Separation of mixed X-rays by models: mean squared error × 1000, without the free "
        f"constant.\n\n{errors(rows)}"
    )


def xray_networks(record: dict) -> str:
    """The same, means over seeds."""
    rows = {
        name: {method: number(fmean(s[0] for s in seeds), 3) for method, seeds in found.items()}
        for name, found in record["rows"].items()
    }
    return (
        "Separation by networks that are trained on the one painting: mean squared error × 1000, "
        f"mean over seeds.\n\n{errors(rows)}"
    )


def scenes(results: dict[str, dict[str, dict]]) -> str:
    """PSNR / SSIM / SAM: a scene and a noise a row, a method a column."""
    methods = list(dict.fromkeys(m for s in results.values() for c in s.values() for m in c))
    rows = [
        [scene.replace("_", " "), case, *(triple(found.get(method)) for method in methods)]
        for scene, cases in results.items()
        for case, found in cases.items()
    ]
    return table(["scene", "noise", *methods], rows)


def hyperspectral(record: dict) -> str:
    """Methods without training."""
    text = scenes(record["results"])
    return f"Cubes, whole scenes: PSNR in dB / SSIM / SAM in radians.\n\n{text}"


def decsc_tables(record: dict) -> str:
    """The same beside DECSC, and how many of its tiles came to rest."""
    results, side = record["results"], record["side"]
    rows = [
        [scene.replace("_", " "), case, f"{found['reached']} of {found['tiles']}"]
        + [number(found["evaluations"], 1), f"{found['residual']:.1e}"]
        for scene, cases in results.items()
        for case, methods in cases.items()
        for found in [methods["DECSC"]]
    ]
    head = ["scene", "noise", "tiles", "evaluations", "residual"]
    return (
        f"Cubes, the middle {side} × {side} pixels of the scenes: PSNR in dB / SSIM / SAM in "
        f"radians.\n\n{scenes(results)}\n"
        "The tiles of DECSC: how many reached their equilibrium, evaluations in the mean, largest "
        f"relative residual.\n\n{table(head, rows)}{ablation(record.get('ablation', {}))}"
    )


def ablation(record: dict[str, dict]) -> str:
    """PSNR / SAM of networks without one of their parts, if they were trained."""
    if not record:
        return ""
    columns = {
        f"{scene.replace('_', ' ')}, {case}": (scene, case)
        for row in record.values()
        for scene, cases in row.items()
        if isinstance(cases, dict)
        for case in cases
    }
    rows = []
    for name, row in record.items():
        found = (row.get(scene, {}).get(case) for scene, case in columns.values())
        rows.append([name, *(f"{f['psnr']:.2f} / {f['sam']:.3f}" if f else "" for f in found)])
    text = table(["network", *columns], rows)
    return f"\nDECSC without one of its parts, each after a short training: PSNR / SAM.\n\n{text}"


def triple(found: dict | None) -> str:
    return f"{found['psnr']:.2f} / {found['ssim']:.3f} / {found['sam']:.3f}" if found else ""


def side_by_side(record: dict) -> str:
    """The photograph, and the cube with each noise."""
    parts = []
    for case, title in (
        ("image", "One photograph, σ = 25/255"),
        ("noniid", "One cube, levels up to 95/255 that differ from band to band"),
        ("mixture", "The same cube with stripes, dead lines and impulses besides"),
    ):
        if case not in record:
            continue
        cube = case != "image"
        head = ["method", "chapter", "PSNR", "SSIM", *["SAM"] * cube]
        rows = []
        for name, found in record[case].items():
            row = [name, str(found["chapter"]), number(found["psnr"]), number(found["ssim"], 3)]
            row += [number(found["sam"], 3)] if cube else []
            row += [number(found["parameters"]), f"{found['seconds']:.2g}"]
            rows.append([*row, number(found["megabytes"])])
        parts.append(f"{title}.\n\n{table([*head, 'parameters', 'seconds', 'MB'], rows)}")
    return "\n".join(parts)


TABLES: dict[str, Callable[[dict], str]] = {
    function.__name__: function
    for function in (
        deblurring,
        super_resolution,
        coupled_ista,
        xray_model,
        xray_networks,
        hyperspectral,
        decsc_tables,
        side_by_side,
    )
}


def page() -> str:
    """The text of the page."""
    records = {
        path.stem: json.loads(path.read_text("utf8"))
        for path in sorted(WEIGHTS.glob("*.json"))
        if path.name != "manifest.json"
    }
    trained = {name: record for name, record in records.items() if "scores" in record}
    parts = [HEAD, networks(trained), "## Recorded tables\n"]
    for name, write in TABLES.items():
        if name in records:
            title = f"### Chapter {link(CHAPTER_OF[name])}\n"
            parts.append(f"{title}\n{write(records[name])}")
    other = sorted(records.keys() - trained.keys() - TABLES.keys())
    if other:
        listed = ", ".join(f"`{name}.json`" for name in other)
        parts.append(f"Records that chapters plot and that are no tables: {listed}.\n")
    return "\n".join([*parts, TAIL])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    check, text = parser.parse_args().check, page()
    stale = not PAGE.is_file() or PAGE.read_text("utf8") != text
    if stale and not check:
        PAGE.write_text(text, encoding="utf8", newline="\n")
    print(f"book/results.md is {'stale' if stale and check else 'up to date'}.")
    if stale and check:
        print("Run `make notebooks`.")
    return int(stale and check)


if __name__ == "__main__":
    raise SystemExit(main())
