"""The comparisons are fair: nothing wrong is timed, nothing missing is hidden."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import runner
from benchmarks.runner import Case, Entry, NotReached


def busy(milliseconds):
    def run():
        end = time.process_time() + milliseconds / 1e3
        while time.process_time() < end:
            pass

    return run


def right():
    return Entry(busy(1), lambda: 1e-7, 1e-5)


def twice_as_slow():
    return Entry(busy(2), lambda: 0.0, 1e-5, note="slow")


def wrong():
    return Entry(lambda: pytest.fail("timed"), lambda: 1e-3, 1e-5)


def undefined():
    return Entry(lambda: pytest.fail("timed"), lambda: float("nan"), 1e-5)


def missing():
    import a_package_that_nobody_has  # noqa: F401


def broken():
    raise RuntimeError("no such mode")


def far():
    raise NotReached("gap 1e-3 after 10 steps")


PEERS = (right, twice_as_slow, wrong, undefined, missing, broken, far)
CASE = Case("work", {f.__name__: f for f in PEERS}, "twice_as_slow", 0.9)


def test_gate_before_clock():
    rows = runner.compare(CASE, runs=3)
    assert list(dict.fromkeys(row["entry"] for row in rows)) == list(CASE.entries)
    status = {row["entry"]: row["status"] for row in rows}
    assert status == {
        "right": "ok",
        "twice_as_slow": "ok",
        "wrong": "refused",
        "undefined": "refused",
        "missing": "missing",
        "broken": "failed",
        "far": "not reached",
    }
    for row in rows:
        assert (row["status"] == "ok") == ("cpu_min_ms" in row)
        assert row["status"] == "ok" or row["why"]
    assert [row["threads"] for row in rows if row["status"] == "ok"] == [1, 2, 1, 2]
    assert torch.get_num_threads() == 1
    for row in rows[:4]:
        assert row["runs"] == 3
        asked = 1 if row["entry"] == "right" else 2
        assert asked <= row["cpu_min_ms"] <= row["cpu_median_ms"]
    assert rows[0]["ratio"] == pytest.approx(0.5, abs=0.2)
    assert rows[2]["ratio"] == 1

    text = runner.table(CASE, rows)
    assert "missing: No module named 'a_package_that_nobody_has'" in text
    assert "refused: error 1.0e-03 > 1e-05" in text
    assert "failed: RuntimeError: no such mode" in text
    assert "not reached: gap 1e-3 after 10 steps" in text
    assert "-> met: " in text


def test_losses_are_reported():
    case = Case("work", {"slow": twice_as_slow, "right": right}, "right", 1.0)
    assert runner.verdict(case, runner.compare(case, runs=3)).startswith("-> MISSED: ")
    case = Case("work", {"right": right, "missing": missing}, "missing", 1.0)
    assert runner.verdict(case, runner.compare(case, runs=1)) == "-> no comparison with missing"


def test_runs_are_interleaved():
    order = []
    runner.clock({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=2)
    assert "".join(order) == "ababab"  # the first of each warms up


def test_saved_bytes_counts_each_tensor_once():
    x = torch.rand(100, requires_grad=True)
    assert runner.saved_bytes(lambda: x * 2) == 0
    assert runner.saved_bytes(lambda: x.exp()) == 400
    assert runner.saved_bytes(lambda: x.square() + x.sin()) == 400


def test_command_line_writes_what_it_measured(tmp_path):
    """One job with one run: our entries pass their gates, peers pass or say why not."""
    path = tmp_path / "record.json"
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "dwt", "--runs", "1"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [*command, "--json", str(path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert "forward + inverse + backward, symmetric" in done.stdout
    record = json.loads(path.read_text())
    assert record["surroundings"]["versions"]["torch"] == torch.__version__
    assert len(record["surroundings"]["load"]) == 3
    for case in record["jobs"]["dwt"]:
        ours = [row for row in case["rows"] if row["entry"] == "tutorial_lib"]
        assert [row["status"] for row in ours] == ["ok", "ok"]
        assert case["title"] in done.stdout
    first = record["jobs"]["dwt"][0]["rows"][0]
    assert first["saved_bytes"] == 0
    assert first["peak_mb"] > first["added_mb"] > 0
    done = subprocess.run([*command[:5], "fft"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown job fft: allowed are dwt, lifting, shrinkage, deconvolution" in done.stderr
