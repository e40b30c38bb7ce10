"""python -m benchmarks [job ...] [--json PATH]: print tables, write build/benchmarks.json."""

import argparse
import importlib
import json
import os
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a busy machine: threads wait, not spin

from . import runner  # torch, imported there, reads the variable

JOBS = (
    *("dwt", "lifting", "shrinkage", "deconvolution", "flow", "sparse_coding", "dictionary"),
    *("convolutional", "equilibrium"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="job", help=f"of {', '.join(JOBS)}; all if none")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument("--runs", type=int, default=runner.RUNS, help="interleaved runs of each")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "ENTRY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.jobs) - set(JOBS):
        parser.error(f"unknown job {', '.join(sorted(unknown))}: allowed are {', '.join(JOBS)}")
    jobs = {name: importlib.import_module(f"benchmarks.{name}") for name in options.jobs or JOBS}
    if options.peak:
        case = next(iter(jobs.values())).cases()[int(options.peak[0])]
        return runner.print_peak(case, options.peak[1])

    start = time.perf_counter()
    record = {"surroundings": runner.surroundings(), "jobs": {}}
    for name, job in jobs.items():
        record["jobs"][name] = []
        for i, case in enumerate(job.cases()):
            peak = partial(runner.peak_in_fresh_process, name, i)
            rows = runner.compare(case, runs=options.runs, peak=peak)
            print(f"\n{name}: {runner.table(case, rows)}", flush=True)
            record["jobs"][name].append(
                {
                    "title": case.title,
                    "rows": rows,
                    "against": case.against,
                    "target": case.target,
                    "verdict": runner.verdict(case, rows),
                }
            )
    record["load_after"] = runner.surroundings()["load"]
    record["seconds"] = time.perf_counter() - start
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=1) + "\n", "utf8")
    print(f"\n{record['seconds']:.0f} s, written to {options.json}")


if __name__ == "__main__":
    main()
