"""The table of chapter 19: two scenes of CAVE, five kinds of noise, methods without training.

python -m benchmarks.hyperspectral [METHOD ...]      weights/hyperspectral.json, method by method
python -m benchmarks.hyperspectral crops             with the peer bm4d; pip install bm4d

Whole scenes of 512 x 512 x 31, each divided by its largest value; noise of seed 0, neither clipped
nor rounded, the same for every method. `results[scene][case][method]` holds the mean PSNR of the
bands, the mean SSIM of the bands, SAM in radians, and CPU seconds on one thread. The crops of the
slow peer, 64 x 64 in the middle, stand under `crops`, with other methods on the same crop.
"""

import argparse
import json
import time
import warnings

import torch
from torch import Tensor

from tutorial_lib.damaged_cubes import restore_damaged
from tutorial_lib.data import add_cube_noise, cave
from tutorial_lib.low_rank import denoise_low_rank
from tutorial_lib.metrics import psnr, sam, ssim
from tutorial_lib.operators import NotConvergedWarning, identity
from tutorial_lib.robust_pca import low_rank_plus_sparse
from tutorial_lib.thresholding import denoise_wavelet, estimate_sigma
from tutorial_lib.total_variation import restore_tv
from tutorial_lib.training.record import machine, versions
from tutorial_lib.training.weights import WEIGHTS

FILE = WEIGHTS / "hyperspectral.json"
SCENES = ("balloons", "oil_painting")
CASES = {
    "noniid 15": ("noniid", 15 / 255),
    "noniid 55": ("noniid", 55 / 255),
    "noniid 95": ("noniid", 95 / 255),
    "mixture 95": ("mixture", 95 / 255),
    "correlated": ("correlated", None),
}


def wavelet(y: Tensor) -> Tensor:
    return denoise_wavelet(y, wavelet="sym4", transform="undecimated")


def total_variation(y: Tensor) -> Tensor:
    """Band by band at its own noise level: argmin 1/2 ||z - x||^2 + TV(x) with z = y / sigma."""
    sigma = estimate_sigma(y).clamp(min=1e-3)[:, None, None]
    bands = (y / sigma).split(1)  # one at a time fits the cache
    done = [restore_tv(z, identity(z.shape[1:]), 1.0, step=1.0, max_steps=60).value for z in bands]
    return sigma * torch.cat(done)


def pursuit(y: Tensor) -> Tensor:
    """Low rank plus sparse on bands divided by their noise levels: L alone."""
    sigma = estimate_sigma(y).clamp(min=1e-3)[:, None, None]
    z = (y / sigma).flatten(1)
    tau = z.shape[1] ** 0.5 + len(z) ** 0.5
    found = low_rank_plus_sparse(z, tau=tau, lam=2.0, max_steps=100, rtol=1e-3)
    return sigma * found.low_rank.view_as(y)


def bm3d_subspace(y: Tensor) -> Tensor:
    """FastHyDe's idea with the package bm3d: `pip install bm3d`."""
    import bm3d

    def denoise(z: Tensor) -> Tensor:
        images = [bm3d.bm3d(image, 1.0) for image in z.double().numpy()]
        return torch.stack([torch.from_numpy(image) for image in images]).to(z)

    return denoise_low_rank(y, denoise=denoise).cube


def bm4d(y: Tensor) -> Tensor:
    """The package bm4d, told one noise level: the root mean square of those of the bands."""
    import bm4d as peer

    level = float(estimate_sigma(y).square().mean().sqrt())
    found = peer.bm4d(y.permute(1, 2, 0).double().numpy(), level)
    return torch.from_numpy(found).permute(2, 0, 1).to(y)


def bm4d_whitened(y: Tensor) -> Tensor:
    """The same on bands that are divided by their noise levels."""
    sigma = estimate_sigma(y).clamp(min=1e-3)[:, None, None]
    return sigma * bm4d(y / sigma)


METHODS = {
    "noisy": lambda y: y,
    "robust low rank": lambda y: restore_damaged(y).cube,
    "low rank": lambda y: denoise_low_rank(y).cube,
    "wavelet": wavelet,
    "low rank + sparse": pursuit,
    "total variation": total_variation,
    "low rank, bm3d": bm3d_subspace,
}
ON_CROPS = METHODS | {"bm4d": bm4d, "bm4d, whitened": bm4d_whitened}


def score(method, x: Tensor, y: Tensor) -> dict[str, float]:
    begin = time.process_time()
    found = method(y)
    seconds = time.process_time() - begin
    return {
        "psnr": round(psnr(found, x).mean().item(), 3),
        "ssim": round(sum(ssim(*pair).item() for pair in zip(found, x, strict=True)) / len(x), 4),
        "sam": round(sam(found, x).item(), 4),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hyperspectral", description=__doc__)
    parser.add_argument("methods", nargs="*", help=f"of {', '.join(METHODS)}; or crops")
    wanted = parser.parse_args().methods or list(METHODS)
    unknown = [name for name in wanted if name not in METHODS and name != "crops"]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(METHODS)}, crops")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NotConvergedWarning)  # steps are limited
    scenes = {name: cave(name) for name in SCENES}
    scenes = {name: x / x.max() for name, x in scenes.items()}
    for name in wanted:
        table = ON_CROPS if name == "crops" else {name: METHODS[name]}
        for method, run in table.items():
            for scene, x in scenes.items():
                if name == "crops":
                    x = x[:, 224:288, 224:288]
                for case, (kind, sigma) in CASES.items():
                    y = add_cube_noise(x, kind, sigma=sigma, seed=0).cube
                    scores = score(run, x, y)
                    print(method, scene, case, scores, flush=True)
                    write("crops" if name == "crops" else "results", scene, case, method, scores)


def write(part: str, scene: str, case: str, method: str, scores: dict[str, float]) -> None:
    """Into the file as it is now, so that methods can be run one by one."""
    record = json.loads(FILE.read_text()) if FILE.is_file() else {}
    record |= {
        "command": "python -m benchmarks.hyperspectral",
        "data": "CAVE, whole scenes over their largest value; noise of seed 0, not clipped",
        "hardware": machine(torch.device("cpu")),
        "versions": versions(),
    }
    cell = record.setdefault(part, {}).setdefault(scene, {}).setdefault(case, {})
    cell[method] = scores
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
