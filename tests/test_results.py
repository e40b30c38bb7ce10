"""The results page and chapter 21 say what the records and the bibliography say."""

import ast
import base64
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tutorial_lib.training import load_weights, shipped
from tutorial_lib.training.weights import MANIFEST, WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = (ROOT / "book/chapters/21_side_by_side.md").read_text("utf8")
RECORD = json.loads((WEIGHTS / "side_by_side.json").read_text("utf8"))


@pytest.fixture(scope="module")
def script():
    """book/make_results.py, imported without being run."""
    path = ROOT / "book" / "make_results.py"
    spec = importlib.util.spec_from_file_location("make_results", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def timeline():
    """The list that chapter 21 draws."""
    found = re.search(r"^TIMELINE = (\[.*?^\])", CHAPTER, re.DOTALL | re.MULTILINE)
    return ast.literal_eval(found[1])


def test_the_page_is_what_its_script_writes():
    command = [sys.executable, ROOT / "book" / "make_results.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_found_and_left_alone(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(sys, "argv", ["make_results.py"])
    assert script.main() == 0
    text = script.PAGE.read_text("utf8")
    script.PAGE.write_text(text.replace("9", "8"), "utf8")
    stale = script.PAGE.read_bytes()
    monkeypatch.setattr(sys, "argv", ["make_results.py", "--check"])
    assert script.main() == 1
    assert script.PAGE.read_bytes() == stale
    assert "make notebooks" in capsys.readouterr().out


def test_every_network_has_its_row(script):
    text = script.page()
    for name in shipped():
        record = load_weights(name)[1]
        row = re.search(rf"^\| `{name}` \| (.*)$", text, re.MULTILINE)
        assert row, name
        assert record["hardware"] in row[1]
        assert f"| {record['steps']:,} |" in row[1]
        assert row[1].lstrip("[").startswith(str(int(script.chapter_of(name)[:2])))


def test_errors_keep_their_sign(script):
    """Trainings record minus an error, so that the largest score is the best."""
    record = {"parameters": 7, "data": "d", "steps": 1, "seconds": 1.0, "hardware": "h"}
    rows = script.networks({"nenet": record | {"scores": {"minus_rmse": -0.25}}})
    assert "| rmse 0.25 |" in rows and "minus" not in rows


def test_chapter_20_is_shown_with_its_tiles_and_without_its_parts(script):
    found = {"psnr": 40.0, "ssim": 0.9, "sam": 0.1}
    tiles = {"tiles": 25, "reached": 24, "evaluations": 12.34, "residual": 2e-3}
    record = {"side": 64, "results": {"oil_painting": {"mixture": {"DECSC": found | tiles}}}}
    text = script.decsc_tables(record)
    assert "| oil painting | mixture | 40.00 / 0.900 / 0.100 |" in text
    assert "| oil painting | mixture | 24 of 25 | 12.3 | 2.0e-03 |" in text
    assert "without one of its parts" not in text
    record["ablation"] = {"no Trans": {"parameters": 3, "oil_painting": {"mixture": found}}}
    text = script.decsc_tables(record)
    assert "| network | oil painting, mixture |" in text and "| no Trans | 40.00 / 0.100 |" in text


def test_a_network_of_no_chapter_is_refused(script):
    with pytest.raises(ValueError, match="no chapter is known for the weights 'resnet50'"):
        script.chapter_of("resnet50")


def test_every_record_is_on_the_page_or_named(script):
    text = script.page()
    for path in WEIGHTS.glob("*.json"):
        record = json.loads(path.read_text("utf8"))
        if path.name != MANIFEST and "scores" not in record:
            assert path.stem in script.TABLES or f"`{path.name}`" in text


def test_the_table_writer_tells_numbers_from_words(script):
    text = script.table(["name", "dB"], [["a-b", "1,234.5"], ["c", ""]])
    assert text == "| name | dB |\n| --- | ---: |\n| a-b | 1,234.5 |\n| c |  |\n"
    assert [script.duration(s) for s in (9.96, 300, 40_000)] == ["9.96 s", "5 min", "11.1 h"]


def test_chapter_21_compares_the_weights_that_are_shipped():
    """If this fails: python -m benchmarks.side_by_side METHOD, then make notebooks."""
    manifest = json.loads((WEIGHTS / MANIFEST).read_text("utf8"))
    for case in ("image", "noniid", "mixture"):
        for method, row in RECORD[case].items():
            for name, digest in row["weights"].items():
                assert manifest[f"{name}.safetensors"] == digest, (
                    f"{method} is recorded with other weights than the shipped {name}"
                )


def test_the_recorded_pictures_are_windows():
    for row in RECORD["image"].values():
        picture = Image.open(io.BytesIO(base64.b64decode(row["picture"])))
        assert (picture.size, picture.mode) == ((96, 96), "L")


def test_the_years_of_the_timeline_are_those_of_the_bibliography(timeline):
    assert len(timeline) > 20
    bibliography = (ROOT / "book/references.bib").read_text("utf8")
    for key, year, *_ in timeline:
        entry = re.search(rf"^@\w+\{{{key},(.*?)^\}}", bibliography, re.DOTALL | re.MULTILINE)
        assert entry, key
        assert re.search(r"year\s*=\s*\{(\d+)\}", entry[1])[1] == str(year), key


def test_what_the_timeline_names_is_cited_there_or_here(timeline):
    for key, _, _, text, _ in timeline:
        number = int(re.search(r"\((\d+)\)$", text)[1])
        (chapter,) = (ROOT / "book/chapters").glob(f"{number:02}_*.md")
        cited = f"{{cite}}`{key}`"
        assert cited in chapter.read_text("utf8") or cited in CHAPTER, (key, chapter.name)
