"""The tables of chapter 20: DECSC on two scenes of CAVE beside the methods without training.

python -m benchmarks.decsc [--side 256] [PART ...]       weights/decsc_tables.json, part by part

`scores`: the middle of each scene, `side` pixels a side (512: all of it), divided by the largest
value of the scene; noise of seed 0, neither clipped nor rounded, the same for every row.
`results[scene][case][row]` holds the mean PSNR and SSIM of the bands, SAM in radians and CPU
seconds on one thread; of a network also the tiles, how many of them reached their equilibrium, the
mean of their evaluations and the largest residual. Rows without training are computed on the same
pixels; for whole scenes they are copied from weights/hyperspectral.json.

`budget`: 96 x 96 pixels, one shift: PSNR and residual of each scene after so many evaluations.
`equilibrium`: 64 x 64 pixels, one shift: residuals of three solvers; where two starts lead,
the usual one and its result mirrored.
`ablation`: networks without one of their parts, and the unrolled twin, each trained from its start
for 500 steps with the recipe of the book and one seed, ridge = 0 (an hour on one core): PSNR and
SAM on the middles of the scenes, 128 x 128 pixels, mean over four shifts.
`whole`: 96 x 96 pixels at once against tiles of 64, both with the mean over four shifts.
"""

import argparse
import json
import tempfile
import time
import warnings

import torch
from torch import Tensor

from tutorial_lib.data import add_cube_noise, cave
from tutorial_lib.fixed_points import fixed_point
from tutorial_lib.jacobian import jacobian_norm, spectral_radius
from tutorial_lib.metrics import psnr, sam, ssim
from tutorial_lib.networks.decsc import DECSC, SOLVER
from tutorial_lib.operators import NotConvergedWarning
from tutorial_lib.training import fit
from tutorial_lib.training.cube_tiles import Tile, denoise_cube
from tutorial_lib.training.recipes import decsc
from tutorial_lib.training.record import machine, versions
from tutorial_lib.training.weights import WEIGHTS, load_network
from tutorial_lib.whitening import Whitened, whiten

from . import hyperspectral
from .hyperspectral import CASES, SCENES

FILE = WEIGHTS / "decsc_tables.json"
BASELINES = ("noisy", "wavelet", "low rank", "robust low rank")
# Row: name of its weights, what distinguishes its network. A twin is one more line.
NETWORKS = {
    "DECSC": ("decsc", {}),
}
# What is left out or changed
ABLATION = {
    "all parts": {},
    "six sweeps, unrolled": {"unrolled": 6},
    "no Trans": {"blocks": 0},
    "no Detail": {"detail": False},
    "shared code only": {"unshared": False},
    "unshared code only": {"shared": False},
    "one threshold a map": {"local": False},
}
SHORT = {"steps": 500, "deep": 500}
BUDGETS = (1, 2, 3, 5, 10, 20, 50)
MIXED = CASES["mixture 95"]


def network(row: str) -> DECSC:
    name, parts = NETWORKS[row]
    return load_network(name, DECSC(**parts))


def middle(name: str, side: int) -> Tensor:
    """The middle of a scene over its largest value."""
    x = cave(name)
    a, b = ((n - side) // 2 for n in x.shape[1:])
    return (x / x.max())[:, a : a + side, b : b + side]


def quality(found: Tensor, x: Tensor) -> dict[str, float]:
    return {
        "psnr": round(psnr(found, x).mean().item(), 3),
        "ssim": round(ssim(found, x).mean().item(), 4),
        "sam": round(sam(found, x).item(), 4),
    }


def told(tiles: list[Tile]) -> dict[str, float]:
    return {
        "tiles": len(tiles),
        "reached": sum(t.converged for t in tiles),
        "evaluations": round(sum(t.evaluations for t in tiles) / len(tiles), 1),
        "residual": max(t.residual for t in tiles),
    }


def scores(side: int) -> None:
    baselines = {} if side == 512 else {name: hyperspectral.METHODS[name] for name in BASELINES}
    for scene in SCENES:
        x = middle(scene, side)
        for case, (kind, sigma) in CASES.items():
            y = add_cube_noise(x, kind, sigma=sigma, seed=0).cube
            place = ("results", scene, case)
            if side == 512:
                copied = json.loads(hyperspectral.FILE.read_text())["results"][scene][case]
                for row in BASELINES:
                    write(copied[row], *place, row)
            for row, method in baselines.items():
                write(hyperspectral.score(method, x, y), *place, row)
            for row in NETWORKS:
                begin = time.process_time()
                found, tiles = denoise_cube(network(row), y)
                seconds = {"seconds": round(time.process_time() - begin, 2)}
                write(quality(found, x) | seconds | told(tiles), *place, row)


def budget() -> None:
    for row in NETWORKS:
        for scene in SCENES:
            x = middle(scene, 96)
            for case in ("noniid 95", "mixture 95"):
                kind, sigma = CASES[case]
                y = add_cube_noise(x, kind, sigma=sigma, seed=0).cube
                write(along(network(row), whiten(y), x), "budget", row, scene, case)


@torch.no_grad()
def along(net: DECSC, y: Whitened, x: Tensor) -> dict[int, list[float]]:
    """PSNR and residual after each budget: evaluation k gives what a budget of k returns."""
    f, z = net.problem(y.detail[None])
    levels = []

    def watched(z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        fz = f(z)
        if len(levels) + 1 in BUDGETS:
            levels.append(psnr(y.cube(net.cubes(fz)[0]), x).mean().item())
        else:
            levels.append(0.0)
        return fz

    history = fixed_point(watched, z, rtol=0.0, max_steps=max(BUDGETS)).info.history
    return {n: [round(levels[n - 1], 3), history[n - 1].item()] for n in BUDGETS}


def ablation() -> None:
    settings = {"batch_size": 8, "size": 48, "scene": None, "ridge": 0.0} | SHORT
    steps = settings.pop("steps")
    done = json.loads(FILE.read_text()).get("ablation", {})
    for row, parts in ABLATION.items():
        if row in done:  # go on after an interruption
            continue
        recipe = decsc.recipe(**settings, **parts)
        with tempfile.TemporaryDirectory() as folder:
            options = {"steps": steps, "validate_every": steps, "precision": "bf16"}
            run = fit("variant", recipe, out=folder, **options)
        record = {"parameters": run.record["parameters"]}
        for scene in SCENES:
            x = middle(scene, 128)
            for case in ("noniid 95", "mixture 95"):
                kind, sigma = CASES[case]
                white = whiten(add_cube_noise(x, kind, sigma=sigma, seed=0).cube)
                found, info = run.network.restore(white.detail[None])
                score = quality(white.cube(found[0]), x)
                residual = info.residual.max().item()
                record.setdefault(scene, {})[case] = score | {"residual": residual}
        write(record, "ablation", row)


def equilibrium() -> None:
    x = middle(SCENES[0], 64)
    y = whiten(add_cube_noise(x, MIXED[0], sigma=MIXED[1], seed=0).cube)
    net = network("DECSC")
    with torch.no_grad():
        f, z = net.problem(y.detail[None])
        for method in ("picard", "anderson", "broyden"):
            info = fixed_point(f, z, method=method, rtol=1e-6, max_steps=60).info
            curve = [float(f"{r:.3g}") for r in info.history[:, 0]]
            write(curve, "equilibrium", "residuals", method)
        one = fixed_point(f, z, solver=SOLVER)
        other = fixed_point(f, tuple(u.flip(-1) for u in one.value), solver=SOLVER)
        apart = sum((u - v).square().sum() for u, v in zip(one.value, other.value, strict=True))
        size = sum(u.square().sum() for u in one.value)
        cubes = [y.cube(net.cubes(found.value)[0]) for found in (one, other)]
    generator = torch.Generator().manual_seed(0)
    record = {
        "norm": jacobian_norm(f, one.value, steps=30, generator=generator).item(),
        "radius": spectral_radius(f, one.value, steps=60, generator=generator).item(),
        "distance": apart.sqrt().item(),
        "size": size.sqrt().item(),
        "residuals": [one.info.residual.item(), other.info.residual.item()],
        "lengths": [one.info.distance.item(), other.info.distance.item()],
        "cubes": (cubes[0] - cubes[1]).square().mean().sqrt().item(),
    }
    write(record, "equilibrium", "starts")


def whole() -> None:
    x = middle(SCENES[0], 96)
    y = add_cube_noise(x, MIXED[0], sigma=MIXED[1], seed=0).cube
    net = network("DECSC")
    tiled = denoise_cube(net, y).cube
    white = whiten(y)
    full = white.cube(net.restore(white.detail[None])[0][0])
    record = {
        "difference": ((tiled - full).norm() / full.norm()).item(),
        "tiled": quality(tiled, x),
        "whole": quality(full, x),
    }
    write(record, "whole")


def write(value: object, *place: str) -> None:
    """Into the file as it is now, so that parts can be run one by one."""
    print(*place, value, flush=True)
    record = json.loads(FILE.read_text()) if FILE.is_file() else {}
    record |= {
        "command": "python -m benchmarks.decsc",
        "hardware": machine(torch.device("cpu")),
        "versions": versions(),
    }
    cell = record
    for key in place[:-1]:
        cell = cell.setdefault(key, {})
    cell[place[-1]] = value
    FILE.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decsc", description=__doc__)
    parts = ("scores", "budget", "equilibrium", "whole", "ablation")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; or all")
    parser.add_argument("--side", type=int, default=256, help="pixels a side of `scores`")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(parts)}")
    if not 64 <= given.side <= 512 or given.side % 2:
        parser.error(f"--side {given.side}: an even number from 64 to 512")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NotConvergedWarning)  # the records tell it
    weights = json.loads((WEIGHTS / "decsc.json").read_text())
    write({key: weights[key] for key in ("steps", "seconds", "parameters")}, "weights")
    for part in given.parts or parts:
        if part == "scores":
            write(given.side, "side")
            scores(given.side)
        else:
            globals()[part]()


if __name__ == "__main__":
    main()
