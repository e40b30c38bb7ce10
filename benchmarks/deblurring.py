"""Deblurring by four methods, the table of chapter 8, written to weights/deblurring.json.

python -m benchmarks.deblurring classical    wavelets by FISTA and total variation
python -m benchmarks.deblurring learned      plug and play, with the weights that are shipped

Levin's eight kernels, circular blur, noise of 1 % (2.55/255), photographs that come with the
package at 256 x 256 pixels; PSNR in dB of images clipped to [0, 1]. The classical methods get for
each picture the lambda that is best for it, judged with the truth; plug and play gets nothing.
"""

import argparse
import json
import time

import torch
from torch import Tensor

from tutorial_lib.data import add_noise, levin_kernels, photograph
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.winnet import NENet, WINNet
from tutorial_lib.operators import LinearOperator, blur, wavelet_synthesis
from tutorial_lib.plug_and_play import log_levels, plug_and_play, plug_and_play_scheduled
from tutorial_lib.solvers import fista
from tutorial_lib.total_variation import restore_tv
from tutorial_lib.training.weights import WEIGHTS, load_network

PHOTOGRAPHS = ("camera", "astronaut", "coffee", "motorcycle")
SIGMA, SIZE = 2.55 / 255, 256
SHRINK = (1e-3, 1.4e-3, 2e-3, 2.8e-3, 4e-3)  # lambdas of wavelet FISTA
VARIATION = (2e-4, 4e-4, 6e-4, 8e-4, 1.2e-3, 1.6e-3)  # and of total variation
FILE = WEIGHTS / "deblurring.json"


def problem(kernel: Tensor, clean: Tensor) -> tuple[LinearOperator, Tensor]:
    """The blur, and the blurred photographs with their noise."""
    H = blur(kernel.float(), clean.shape[1:])
    return H, torch.stack([add_noise(H(x), SIGMA, seed=i) for i, x in enumerate(clean)])


def classical(H: LinearOperator, y: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """PSNR (n,) at the best lambda of each picture; an end of the grid is reported."""
    W = wavelet_synthesis(H.shape_in, wavelet="sym4", level=4)
    a, shrunk = None, []
    for lam in reversed(SHRINK):  # each start is the solution before it
        a = fista(H @ W, y, lam, step=1.0, x0=a, max_steps=60, rtol=0).value
        shrunk.append(quality(W(a), clean))
    varied = [quality(restore_tv(y, H, lam, rtol=2e-4).value, clean) for lam in VARIATION]
    best = {}
    for name, found in (("wavelets", shrunk), ("total variation", varied)):
        scores = torch.stack(found)
        best[name] = scores.amax(0)
        at = scores.argmax(0)
        if ((at == 0) | (at == len(found) - 1)).any():
            print(f"  {name}: best at an end of the grid {at.tolist()}")
    return {"blurred": quality(y, clean), **best}


def learned(H: LinearOperator, y: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """PSNR (n,) of plug and play with its own schedule and with DPIR's, and the steps taken."""
    winnet, nenet = load_network("winnet", WINNet()), load_network("nenet", NENet())
    options = {"denoise": winnet, "sigma": SIGMA, "levels": log_levels(SIGMA)}
    scores = {"plug-and-play": [], "its last x": [], "fixed schedule": [], "steps": []}
    for one, truth in zip(y, clean, strict=True):  # twice as fast as a batch: it fits the cache
        run = plug_and_play(one, H, denoise=winnet, estimate=nenet)
        scores["plug-and-play"].append(quality(run.value, truth))
        scores["its last x"].append(quality(run.fitted, truth))
        fixed = plug_and_play_scheduled(one, H, **options).value
        scores["fixed schedule"].append(quality(fixed, truth))
        scores["steps"].append(run.history[1:].isfinite().sum())
    return {name: torch.stack(values) for name, values in scores.items()}


def quality(x: Tensor, clean: Tensor) -> Tensor:
    return psnr(x.clamp(0, 1), clean)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deblurring", description=__doc__)
    parser.add_argument("part", choices=("classical", "learned"))
    part = parser.parse_args().part
    torch.set_num_threads(1)
    clean = torch.stack([photograph(name, size=SIZE) for name in PHOTOGRAPHS])
    record = json.loads(FILE.read_text()) if FILE.is_file() else {}
    record |= {"photographs": PHOTOGRAPHS, "sigma": SIGMA, part: []}
    start = time.perf_counter()
    for i, kernel in enumerate(levin_kernels(), 1):
        H, y = problem(kernel, clean)
        scores = (classical if part == "classical" else learned)(H, y, clean)
        record[part].append({k: [round(v, 3) for v in s.tolist()] for k, s in scores.items()})
        means = "  ".join(f"{k} {s.float().mean():.2f}" for k, s in scores.items())
        print(f"kernel {i}: {means}  ({time.perf_counter() - start:.0f} s)", flush=True)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
