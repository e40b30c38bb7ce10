"""One comparison: gate, then clock, then memory; one row for each entry and number of threads."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

RUNS = 9
PACKAGES = (
    *("torch", "numpy", "scipy", "PyWavelets", "scikit-image"),
    *("ptwt", "pytorch_wavelets", "pylops", "pyproximal", "scikit-learn", "ksvd", "spams-bin"),
    "sporco",
    "torchdeq",
)


class NotReached(Exception):
    """A solver did not come as close to the best known objective as the case asks."""


class Entry(NamedTuple):
    """One competitor, with its inputs already in its own form.

    Args:
        run: what is timed.
        error: called before the clock: how far its output is from the right one.
        tolerance: the largest error that is let through.
        forward: the part that autograd records, or None; what it saves for backward is counted.
        note: what a reader must know to judge the row.
    """

    run: Callable[[], object]
    error: Callable[[], float]
    tolerance: float
    forward: Callable[[], object] | None = None
    note: str = ""


class Case(NamedTuple):
    """Entries that do the same work on the same bytes.

    Args:
        title: the work and its input.
        entries: name -> a function that imports the package and prepares its `Entry`.
        against: the entry that the first one is compared with.
        target: the first one's CPU time is to be at most target x that of `against`.
        threads: numbers of threads, each a row.
        peak: measure the peak resident size of one run in a fresh process.
    """

    title: str
    entries: dict[str, Callable[[], Entry]]
    against: str
    target: float
    threads: tuple[int, ...] = (1, 2)
    peak: bool = False


def compare(case: Case, *, runs: int = RUNS, peak: Callable[[str], dict] | None = None) -> list:
    """The rows of a case, each a dictionary with `entry` and `status`, and times where it is ok."""
    ready, rows = {}, []
    torch.set_num_threads(1)
    for name, prepare in case.entries.items():
        status, entry = admit(prepare)
        if entry is None:
            rows.append({"entry": name, **status})
        else:
            ready[name] = entry, status
    for threads in case.threads:
        torch.set_num_threads(threads)
        times = clock({name: entry.run for name, (entry, _) in ready.items()}, runs=runs)
        for name, (entry, status) in ready.items():
            row = {"entry": name, **status, "threads": threads, **times[name], "note": entry.note}
            if threads == 1:
                row["saved_bytes"] = saved_bytes(entry.forward) if entry.forward else None
                row.update(peak(name) if peak and case.peak else {})
            base = times.get(case.against)
            row["ratio"] = row["cpu_min_ms"] / base["cpu_min_ms"] if base else None
            rows.append(row)
    torch.set_num_threads(1)
    return sorted(rows, key=lambda row: list(case.entries).index(row["entry"]))


def admit(prepare: Callable[[], Entry]) -> tuple[dict, Entry | None]:
    """The gate: an entry that is missing, fails or is wrong is reported, and gets no time."""
    try:
        entry = prepare()
        error = float(entry.error())
    except ImportError as missing:
        return {"status": "missing", "why": str(missing)}, None
    except NotReached as far:
        return {"status": "not reached", "why": str(far)}, None
    except Exception as failure:  # a peer's own error is a result
        return {"status": "failed", "why": f"{type(failure).__name__}: {failure}"}, None
    if not error <= entry.tolerance:  # NaN is wrong too
        return {
            "status": "refused",
            "error": error,
            "why": f"error {error:.1e} > {entry.tolerance:.0e}",
        }, None
    return {"status": "ok", "error": error}, entry


def until(
    solve: Callable[[int], object], trace: list[float], best: float, gap: float, note: str = ""
) -> Entry:
    """An iterative solver, run for as many steps as a relative gap (F - best) / best takes.

    Args:
        solve: runs a number of steps.
        trace: its objective F after each step, evaluated off the clock.
        best: the best known objective.
    """
    gaps = [objective / best - 1 for objective in trace]
    steps = next((k for k, reached in enumerate(gaps, 1) if reached <= gap), None)
    if steps is None:
        raise NotReached(f"gap {gaps[-1]:.0e} after {len(gaps)} steps")
    note = f"{steps} steps {note}".strip()
    return Entry(lambda: solve(steps), lambda: gaps[steps - 1], gap, note=note)


def clock(functions: dict[str, Callable[[], object]], *, runs: int) -> dict[str, dict]:
    """CPU time of the process, and wall time, of interleaved runs after one that warms up."""
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    wall: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(runs + 1):
        for name, function in functions.items():
            start, begin = time.perf_counter(), time.process_time()
            function()
            if i:
                cpu[name].append(1e3 * (time.process_time() - begin))
                wall[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            "runs": runs,
            "cpu_min_ms": min(cpu[name]),
            "cpu_median_ms": statistics.median(cpu[name]),
            "wall_min_ms": min(wall[name]),
        }
        for name in functions
    }


def saved_bytes(forward: Callable[[], object]) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward."""
    kept = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def peak_in_fresh_process(job: str, case: int, entry: str) -> dict:
    """Peak resident size of one run, and how much of it the run added."""
    command = [sys.executable, "-m", "benchmarks", job, "--peak", str(case), entry]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    before, after = map(float, done.stdout.split())
    return {"peak_mb": after, "added_mb": after - before}


def print_peak(case: Case, entry: str) -> None:
    torch.set_num_threads(1)
    run = case.entries[entry]().run
    before = resident_peak()
    run()
    print(before, resident_peak())


def resident_peak() -> float:
    """MB. Linux counts a parent's pages in getrusage, but not in VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def surroundings() -> dict:
    """Versions, machine and load: what a reader needs to judge the times."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return {
        "versions": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        **{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
    }


def table(case: Case, rows: list) -> str:
    """The rows as text, the verdict on the target last."""
    width = max(map(len, case.entries))
    head = (
        f"{'':{width}}  threads  cpu min  median  wall min [ms]  ratio    error  saved  peak [MB]"
    )
    lines = [case.title, head]
    for row in rows:
        start = f"{row['entry']:{width}}"
        if row["status"] != "ok":
            lines.append(f"{start}  {row['status']}: {row['why']}")
            continue
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else "-"
        saved, peak = row.get("saved_bytes"), row.get("peak_mb")
        lines.append(
            f"{start}  {row['threads']:7}  {row['cpu_min_ms']:7.1f} {row['cpu_median_ms']:7.1f}"
            f"  {row['wall_min_ms']:8.1f}       {ratio:>5}  {row['error']:.1e}"
            f"  {'-' if saved is None else f'{saved / 2**20:.1f}':>5}"
            + ("" if peak is None else f"  {peak:.0f} (+{row['added_mb']:.0f})")
            + (f"  {row['note']}" if row["note"] else "")
        )
    lines.append(verdict(case, rows))
    return "\n".join(lines)


def verdict(case: Case, rows: list) -> str:
    """Whether the first entry's CPU time on one thread is at most target x that of `against`."""
    first = next(iter(case.entries))
    found = [r for r in rows if r["entry"] == first and r["status"] == "ok" and r["threads"] == 1]
    if not found or found[0]["ratio"] is None:
        return f"-> no comparison with {case.against}"
    ratio = found[0]["ratio"]
    word = "met" if ratio <= case.target else "MISSED"
    return f"-> {word}: {ratio:.2f} x {case.against}, target at most {case.target:.2f}"
