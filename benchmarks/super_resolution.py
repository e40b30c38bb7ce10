"""Coupled dictionaries of chapter 10: their training, and the table of Set5.

python -m benchmarks.super_resolution train      weights/coupled2, coupled3, coupled4, or some:
python -m benchmarks.super_resolution train 3
python -m benchmarks.super_resolution score      weights/super_resolution.json

Trained on the 200 training photographs of BSDS500, 100 000 patches a scale. Scored as published:
luminance of BT.601, sizes cropped to multiples of the scale, 8 bits for the photograph, the small
image and the result, borders of `scale` pixels left out, PSNR of peak 255, mean over five images.
"""

import argparse
import json
import time

import torch
from torch import Tensor

from tutorial_lib.data import bsds500, set5
from tutorial_lib.metrics import psnr
from tutorial_lib.super_resolution import (
    CoupledDictionary,
    back_project,
    crop,
    downscale,
    luminance,
    super_resolve,
    train_coupled,
    upscale,
)
from tutorial_lib.training import load_weights, save_weights
from tutorial_lib.training.record import machine, versions
from tutorial_lib.training.weights import WEIGHTS

SCALES = (2, 3, 4)
CONFIG = {"atoms": 1024, "n_nonzero_coefs": 3, "patches": 100_000, "steps": 20, "seed": 0}
FILE = WEIGHTS / "super_resolution.json"
PUBLISHED = {2: 35.78, 3: 31.90, 4: 29.69}  # Zeyde et al., as later comparisons quote them


def rounded(x: Tensor) -> Tensor:
    """To the 256 levels of 8 bits."""
    return (255 * x).round().clamp(0, 255) / 255


def results(
    colour: Tensor, pair: CoupledDictionary, scale: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The luminance of one photograph, and what four methods make of its reduction."""
    x = rounded(luminance(crop(colour.double(), scale=scale))).float()
    y = rounded(downscale(x, scale=scale))
    found = {"bicubic": upscale(y, scale=scale), "coupled": super_resolve(y, pair)}
    found |= {f"{name}, back-projected": back_project(z, y) for name, z in found.items()}
    return x, {name: rounded(z) for name, z in found.items()}


def score(pair: CoupledDictionary, scale: int) -> dict[str, dict[str, float]]:
    """PSNR of every method and image of Set5, in dB."""
    table = {}
    for name, colour in set5().items():
        x, found = results(colour, pair, scale)
        inside = (..., slice(scale, -scale), slice(scale, -scale))
        for method, z in found.items():
            table.setdefault(method, {})[name] = round(psnr(z[inside], x[inside]).item(), 3)
    return table


def mean(scores: dict[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def train(scales: list[int]) -> None:
    images = [luminance(x) for x in bsds500("train")]
    for scale in scales:
        begin = time.perf_counter()
        pair = train_coupled(images, scale=scale, **CONFIG)
        seconds = time.perf_counter() - begin
        record = {
            "name": f"coupled{scale}",
            "steps": CONFIG["steps"],
            "seed": CONFIG["seed"],
            "config": {"scale": scale, **CONFIG},
            "data": "200 photographs of BSDS500 (train), luminance",
            "seconds": round(seconds, 1),
            "hardware": machine(torch.device("cpu")),
            "versions": versions(),
            "scores": {"psnr_set5": round(mean(score(pair, scale)["coupled"]), 3)},
        }
        holder = torch.nn.Module()
        for name, value in pair._asdict().items():
            holder.register_buffer(name, value)
        print(save_weights(f"coupled{scale}", holder, record), record["scores"], flush=True)


def table() -> None:
    record = {"set": "Set5"}
    for scale in SCALES:
        record[str(scale)] = score(CoupledDictionary(**load_weights(f"coupled{scale}")[0]), scale)
        means = "  ".join(f"{k} {mean(v):.2f}" for k, v in record[str(scale)].items())
        print(f"x{scale}: {means}  Zeyde et al. {PUBLISHED[scale]:.2f}")
    FILE.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.super_resolution", description=__doc__
    )
    parser.add_argument("part", choices=("train", "score"))
    parser.add_argument("scales", nargs="*", type=int, help="to train; 2, 3 and 4 if none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "train":
        train(options.scales or list(SCALES))
    else:
        table()


if __name__ == "__main__":
    main()
