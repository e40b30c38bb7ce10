"""The tables of chapter 21: every method on one photograph and on one cube.

python -m benchmarks.side_by_side [image] [cube] [METHOD ...]    weights/side_by_side.json

The photograph is `camera` with 256 x 256 pixels, sigma = 25/255, seed 0; the cube the 64 x 64
pixels in the middle of CAVE's balloons over their largest value, with two of the noises of chapter
19, seed 0: one of the crops of benchmarks.hyperspectral, which has BM4D on it.

Each method runs in a process of its own with one thread: `seconds` is its processor time, the least
of three runs, and `megabytes` what its memory grew by at most. What was learned from other pictures
is learned before the clock starts; what is learned from the noisy one, after. A method that needs a
lambda gets the one that was best, on average, for three other photographs. The package bm3d is in
the extra `book`.
"""

import argparse
import base64
import ctypes
import io
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import hyperspectral
from tutorial_lib.convolutional import conv_dictionary, split_lowpass
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.convolutional_learning import learn_filters
from tutorial_lib.convolutional_shifts import average_shifts, stack_shifts
from tutorial_lib.data import add_cube_noise, add_noise, cave, photograph
from tutorial_lib.dictionary import (
    dct_dictionary,
    denoise_dictionary,
    extract_patches,
    learn_dictionary,
)
from tutorial_lib.metrics import psnr, sam, ssim
from tutorial_lib.operators import NotConvergedWarning, identity, wavelet_synthesis
from tutorial_lib.solvers import fista
from tutorial_lib.thresholding import denoise_wavelet
from tutorial_lib.total_variation import restore_tv
from tutorial_lib.training.recipes import (
    decsc,
    equilibrium_implicit,
    equilibrium_unrolled,
    linn_soft,
    nenet,
    winnet,
)
from tutorial_lib.training.record import machine, versions
from tutorial_lib.training.weights import MANIFEST, WEIGHTS
from tutorial_lib.whitening import whiten

FILE = WEIGHTS / "side_by_side.json"
SIGMA, SIZE, CROP = 25 / 255, 256, slice(224, 288)
WINDOW = (slice(36, 132), slice(72, 168))  # rows and columns of the pictures that are kept
OTHERS = ("astronaut", "coffee", "chelsea")  # choose what a method cannot find itself
FILTERS = ("astronaut", "coffee", "coins", "chelsea", "rocket", "brick")
GRIDS = {  # lambda over sigma
    "lasso": (0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5),
    "tv": (0.6, 0.8, 1.0, 1.2),
    "csc": (1.0, 1.5, 2.0, 2.5),
}


class Method(NamedTuple):
    """A row of the table.

    Args:
        chapter: where it is explained.
        told: what it is told beside the noisy picture.
        prepare: learns from other pictures, and returns the method.
        parameters: numbers learned, from whatever.
        weights: names of the recorded weights that it uses.
    """

    chapter: int
    told: str
    prepare: Callable[[], Callable[[Tensor], Tensor]]
    parameters: int = 0
    weights: tuple[str, ...] = ()


def best(grid: str, run: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor], Tensor]:
    """`run` with the lambda of a grid that is best on average for `OTHERS`."""
    pictures = torch.stack([photograph(name, size=SIZE) for name in OTHERS])
    noisy = add_noise(pictures, SIGMA, seed=1)
    scores = {
        t: sum(psnr(run(y, t * SIGMA), x).item() for x, y in zip(pictures, noisy, strict=True))
        for t in GRIDS[grid]
    }
    t = max(scores, key=scores.get)
    if t in (GRIDS[grid][0], GRIDS[grid][-1]):
        print(f"  {grid}: best at an end of the grid, {t}")
    return partial(run, lam=t * SIGMA)


def lasso(y: Tensor, lam: float) -> Tensor:
    """argmin_a 1/2 ||y - W^T a||^2 + lam ||a||_1: for an orthonormal W one step is the answer."""
    W = wavelet_synthesis(y.shape, wavelet="sym8", level=4)
    return W(fista(W, y, lam, step=1.0, max_steps=3).value)


def variation(y: Tensor, lam: float) -> Tensor:
    return restore_tv(y, identity(y.shape), lam, step=1.0, rtol=1e-3).value


def own_atoms(y: Tensor) -> Tensor:
    """256 atoms by K-SVD from the noisy picture itself, as in chapter 9."""
    patches = extract_patches(y, size=8)
    patches = patches - patches.mean(-1, keepdim=True)
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))
    patches = patches[order[:20_000]]
    tol = 64 * (1.15 * SIGMA) ** 2
    patches = patches[patches.square().sum(1) > tol]
    start = dct_dictionary(8, 16)
    learned = learn_dictionary(patches, start, tol=tol, method="ksvd-approximate", steps=10)
    return denoise_dictionary(y, learned.dictionary, sigma=SIGMA)


def convolutional() -> Callable[[Tensor], Tensor]:
    """Chapter 17: 32 filters from six small photographs, stride 2, the mean of the four grids."""
    views = torch.stack([photograph(name, size=64)[None] for name in FILTERS])
    random = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    random = random / random.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    filters = learn_filters(split_lowpass(views)[1], random, 0.1, stride=4, steps=25).filters

    def run(y: Tensor, lam: float) -> Tensor:
        low, high = split_lowpass(y[None])
        moved = stack_shifts(high, 2)
        z = csc_admm(moved, filters, lam, stride=2, max_steps=25, rtol=0).value
        D = conv_dictionary(filters, y.shape, stride=2)
        return (low + average_shifts(D(z), 2, y.shape))[0]

    return best("csc", run)


def bm3d(y: Tensor) -> Tensor:
    import bm3d as peer

    return torch.from_numpy(peer.bm3d(y.double().numpy(), SIGMA)).float()


def undecimated(y: Tensor) -> Tensor:
    return denoise_wavelet(y, sigma=SIGMA, wavelet="haar", transform="undecimated")


def equilibrium_codes(y: Tensor) -> Tensor:
    """DECSC on the whitened eigenimages, as in chapter 20."""
    white = whiten(y)
    return white.cube(decsc.trained().restore(white.detail[None])[0][0])


def plain(run: Callable[[Tensor], Tensor]) -> Callable[[], Callable[[Tensor], Tensor]]:
    """Nothing to prepare."""
    return lambda: run


def count(*networks: torch.nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


BLIND = count(winnet.trained(), nenet.trained())
IMAGE = {
    "noisy": Method(2, "", plain(lambda y: y)),
    "wavelet lasso": Method(3, "sigma, lambda", lambda: best("lasso", lasso)),
    "wavelets": Method(2, "sigma", plain(lambda y: denoise_wavelet(y, sigma=SIGMA))),
    "undecimated": Method(2, "sigma", plain(undecimated)),
    "total variation": Method(8, "sigma, lambda", lambda: best("tv", variation)),
    "cosine patches": Method(
        9,
        "sigma",
        plain(lambda y: denoise_dictionary(y, dct_dictionary(8, 16), sigma=SIGMA)),
    ),
    "K-SVD": Method(9, "sigma", plain(own_atoms), 64 * 256),
    "convolutional": Method(17, "sigma, lambda", convolutional, 32 * 64),
    "LINN": Method(
        6,
        "sigma",
        lambda: lambda y: linn_soft.trained("lista")(y, SIGMA),
        count(linn_soft.trained("lista")),
        ("linn_lista",),
    ),
    "WINNet": Method(7, "", lambda: lambda y: winnet.denoise(y)[0], BLIND, ("winnet", "nenet")),
    "WINNet, 2 scales": Method(
        7,
        "sigma",
        lambda: lambda y: winnet.denoise(y, SIGMA, name="winnet2", levels=2)[0],
        count(winnet.trained("winnet2", 2)),
        ("winnet2",),
    ),
    "five layers": Method(
        18,
        "",
        lambda: lambda y: equilibrium_unrolled.trained()(y[None])[0],
        count(equilibrium_unrolled.trained()),
        ("equilibrium_unrolled",),
    ),
    "equilibrium": Method(
        18,
        "",
        lambda: lambda y: equilibrium_implicit.trained()(y[None])[0],
        count(equilibrium_implicit.trained()),
        ("equilibrium_implicit",),
    ),
    "BM3D": Method(2, "sigma", plain(bm3d)),
}
WITHOUT = hyperspectral.METHODS
CUBE = {
    "noisy": Method(19, "", plain(WITHOUT["noisy"])),
    "wavelets, band by band": Method(2, "", plain(WITHOUT["wavelet"])),
    "total variation": Method(8, "", plain(WITHOUT["total variation"])),
    "low rank": Method(19, "", plain(WITHOUT["low rank"])),
    "low rank + sparse": Method(19, "", plain(WITHOUT["low rank + sparse"])),
    "robust low rank": Method(19, "", plain(WITHOUT["robust low rank"])),
    "DECSC": Method(
        20,
        "",
        plain(equilibrium_codes),
        count(decsc.trained()),
        ("decsc",),
    ),
}
NOISES = ("noniid", "mixture")  # up to 95/255
PARTS = {"image": IMAGE, "cube": CUBE}


def pairs(part: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """A name, the truth, and what the methods see."""
    if part == "image":
        x = photograph("camera", size=SIZE)
        yield "image", x, add_noise(x, SIGMA, seed=0)
        return
    x = cave("balloons")
    x = (x / x.max())[:, CROP, CROP]
    for kind in NOISES:
        yield kind, x, add_cube_noise(x, kind, sigma=95 / 255, seed=0).cube


def resident(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


@torch.no_grad()
def measure(part: str, name: str) -> dict[str, dict]:
    """Scores, processor seconds and memory of one method; to be run in a process of its own."""
    warnings.simplefilter("ignore", NotConvergedWarning)  # the number of steps is limited
    run, rows = PARTS[part][name].prepare(), {}
    for case, x, y in pairs(part):
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        before, seconds = resident("VmRSS"), []
        while len(seconds) < 3 and sum(seconds) < 20:
            begin = time.process_time()
            found = run(y)
            seconds.append(time.process_time() - begin)
        grown = resident("VmHWM") - before
        row = {
            "psnr": round(psnr(found, x).mean().item(), 3),
            "ssim": round(ssim(found, x).mean().item(), 4),
            "seconds": round(min(seconds), 4),
            "megabytes": round(grown / 1e6),
        }
        if isinstance(run, partial):
            row["lambda"] = round(run.keywords["lam"], 5)
        if part == "cube":
            row["sam"] = round(sam(found, x).item(), 4)
        else:
            row["picture"] = png(found[WINDOW])
        rows[case] = row
    return rows


def png(x: Tensor) -> str:
    """A gray picture, clipped and rounded to 8 bits, as text."""
    buffer = io.BytesIO()
    levels = (255 * x.clamp(0, 1)).round().numpy().astype(np.uint8)
    Image.fromarray(levels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def shipped(method: Method) -> dict[str, str]:
    """The weights that a method uses, and their sha256."""
    manifest = json.loads((WEIGHTS / MANIFEST).read_text())
    return {name: manifest[f"{name}.safetensors"] for name in method.weights}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("wanted", nargs="*", help="image, cube, or names of methods; all if none")
    wanted = set(parser.parse_args().wanted)
    known = {*PARTS, *IMAGE, *CUBE}
    if unknown := wanted - known:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for part, methods in PARTS.items():
        for name, method in methods.items():
            if wanted and not {part, name} & wanted:
                continue
            with fork.Pool(1) as pool:
                rows = pool.apply(measure, (part, name))
            for case, row in rows.items():
                text = {key: value for key, value in row.items() if key != "picture"}
                print(case, name, text, flush=True)
            write(part, name, method, rows)


def write(part: str, name: str, method: Method, rows: dict[str, dict]) -> None:
    """Into the file as it is now, so that methods can be run one by one; in the order above."""
    record = json.loads(FILE.read_text()) if FILE.is_file() else {}
    record |= {
        "command": "python -m benchmarks.side_by_side",
        "window": [s.start for s in WINDOW],
        "hardware": machine(torch.device("cpu")),
        "versions": versions(),
    }
    told = {
        "chapter": method.chapter,
        "told": method.told,
        "parameters": method.parameters,
        "weights": shipped(method),
    }
    for case, row in rows.items():
        table = record.setdefault(case, {}) | {name: told | row}
        record[case] = {key: table[key] for key in PARTS[part] if key in table}
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
