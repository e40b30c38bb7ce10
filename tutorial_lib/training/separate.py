"""Separate the reader's own mixed X-ray: files in, two X-rays out, resumable in between."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib.data import luma, read_gray, read_image, write_image
from tutorial_lib.exclusion import haar_details

from .loop import fit
from .recipes.xray import recipe_for, separate_with, solve
from .state import Run
from .weights import write_atomically

SMALLEST = 24  # pixels a side of a picture
FARTHEST, LOOK = 8, 512  # pixels of a shift, and a side of the part on which it is looked for
PROFILES = {
    "smoke": {"steps": 20, "batch_size": 2, "patch": 32},
    "cpu": {"steps": 1_000, "batch_size": 8, "patch": 48},
    "full": {"steps": 3_000, "batch_size": 16, "patch": 64},
}


class Separation(NamedTuple):
    """Two X-rays whose sum is the mixed one, exactly; float64, in its unit.

    `features` are those of `solve`, or "layers".
    """

    surface: Float[Tensor, "h w"]
    hidden: Float[Tensor, "h w"]
    shift: tuple[int, int]
    features: str
    run: Run


def separate_files(visible: Path, xray: Path, out: Path, *, profile: str = "cpu") -> dict[str, Any]:
    """Write surface and hidden as .png (16 bits, clipped to [0, 1]) and .npy, and record.json.

    Args:
        visible, xray: pictures of one size in any format of `read_image`. Gray ones are used as
            they are, a coloured X-ray by its luma.
        out: folder, created where it is missing. Checkpoints lie there: a run that was killed
            goes on when it is called again.
        profile: "smoke" (a trial), "cpu" or "full".

    Returns:
        The record.

    Raises:
        ValueError: files that are no pictures, sizes that differ, a flat X-ray, another profile,
            `out` is a file or holds the run of another painting. OSError: `out` cannot be written.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: allowed are {', '.join(PROFILES)}")
    picture, x = read_image(visible), read_gray(xray)
    if picture.ndim == 3 and picture.shape[0] != 3:
        raise ValueError(
            f"{visible}: expected gray (h, w) or colour (3, h, w), got {tuple(picture.shape)}"
        )
    if picture.shape[-2:] != x.shape:
        raise ValueError(
            f"the picture and its X-ray must be of one size: {visible} has "
            f"{tuple(picture.shape[-2:])} pixels (h, w), {xray} has {tuple(x.shape)}"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: the output needs a folder")
    begin = time.perf_counter()
    found = separate(picture, x, out=out, **PROFILES[profile])
    for name in ("surface", "hidden"):
        part = getattr(found, name)
        write_image(out / f"{name}.png", part, bits=16)
        np.save(out / f"{name}.npy", part.numpy())
    record = {
        "visible": str(visible),
        "xray": str(xray),
        "profile": profile,
        "size": list(x.shape),
        "shift": list(found.shift),
        "features": found.features,
        "share": found.surface.mean().item() / max(x.mean().item(), 1e-12),
        "seconds": round(time.perf_counter() - begin, 1),
        "training": {k: found.run.record[k] for k in ("steps", "seconds", "hardware", "versions")},
    }
    write_atomically(out / "record.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def separate(
    visible: Float[Tensor, "*c h w"],
    xray: Float[Tensor, "rows columns"],
    *,
    out: str | Path,
    steps: int = 1_000,
    batch_size: int = 8,
    patch: int = 48,
    layers: int = 0,
    seed: int = 0,
) -> Separation:
    """Train on one painting, and separate its X-ray.

    Without layers, what is linear in R is solved for exactly after the training (`solve`).
    What the two estimates leave of the X-ray is given to the hidden one: the surface is what the
    picture explains. The free constant is chosen by `share_constant`.

    Args:
        visible: gray (h, w) or colour (3, h, w), in [0, 1].
        xray: (h, w), in any unit.
        out: folder of the checkpoints.
        steps, batch_size, patch: of the training.
        layers: of `XRayNet`; 0, because none were found to help (chapter 16).
        seed: of weights and patches.

    Raises:
        ValueError: sizes that differ, fewer than 24 pixels a side, a flat X-ray.
    """
    visible = visible.expand(3, *visible.shape) if visible.ndim == 2 else visible
    if visible.shape[-2:] != xray.shape:
        raise ValueError(
            f"the picture and its X-ray must be of one size, got {tuple(visible.shape[-2:])} and "
            f"{tuple(xray.shape)}"
        )
    if min(xray.shape) < SMALLEST:
        raise ValueError(f"at least {SMALLEST} pixels a side are needed, got {tuple(xray.shape)}")
    levels = xray.flatten().double().numpy()
    low, high = np.quantile(levels, [0.005, 0.995])
    if not high > low:
        raise ValueError(f"the X-ray is flat: nearly all of its pixels are {low:g}")
    shift, _ = register(visible, xray)
    visible = moved(visible, shift)
    normal = ((xray - low) / (high - low)).float()
    content = visible.contiguous().numpy().tobytes() + xray.contiguous().numpy().tobytes()
    run = fit(
        "separation",
        recipe_for(visible, normal, batch_size=batch_size, patch=patch, layers=layers, seed=seed),
        steps=steps,
        seed=seed,
        out=out,
        config={"painting": hashlib.sha256(content).hexdigest(), "patch": patch, "layers": layers},
    )
    if layers:
        surface, features = separate_with(run.network, visible, normal).surface[0, 0], "layers"
    else:
        surface, features = solve(run.network.head, visible, normal)
    surface = surface.double() * (high - low)
    surface = share_constant(surface, xray.double() - surface)
    surface = (surface * 2**30).round() / 2**30  # so that the sum is exact in float64
    return Separation(surface, xray.double() - surface, shift, features, run)


def share_constant(
    surface: Float[Tensor, "h w"], hidden: Float[Tensor, "h w"], *, part: float = 0.002
) -> Float[Tensor, "h w"]:
    """The surface with the constant that the model leaves open.

    No X-ray is negative. The darkest pixels (the quantile `part`) of both are set to 0, and what
    is left of the sum is shared in proportion to the standard deviations.

    >>> surface, hidden = torch.tensor([[0.0, 0.2]]), torch.tensor([[0.7, 0.5]])
    >>> share_constant(surface, hidden)
    tensor([[0.2500, 0.4500]])
    """
    low = [np.quantile(t.flatten().numpy(), part) for t in (surface, hidden)]
    spread = surface.std(correction=0), hidden.std(correction=0)
    share = spread[0] / (spread[0] + spread[1]).clamp(min=1e-12)
    return (surface - low[0] + share * (low[0] + low[1])).to(surface)


def register(
    visible: Float[Tensor, "3 h w"], xray: Float[Tensor, "h w"], *, reach: int = FARTHEST
) -> tuple[tuple[int, int], Float[Tensor, "m m"]]:
    """By how many pixels (down, right) the picture must move to fit its X-ray best.

    For each shift, the share of the X-ray's edges W x that are a linear combination of the edges of
    40 functions of the colours (hats over the gray and each colour, 10 each): one Fourier transform
    gives the products with all shifts, and one linear system the shares.

    Returns:
        The best shift, and the shares of all shifts from -reach to reach, m = 2 reach + 1.

    >>> visible = torch.rand(3, 32, 32)
    >>> register(visible, visible[1].roll((2, -1), (0, 1)))[0]
    (2, -1)
    """
    reach = min(reach, min(xray.shape) // 4)
    rows, columns = (slice(max(0, (n - LOOK) // 2), (n + LOOK) // 2) for n in xray.shape)
    visible, xray = visible[:, rows, columns], xray[rows, columns]
    centres = torch.linspace(0, 1, 10)[:, None, None, None]
    channels = torch.cat([visible, luma(visible)[None]])
    hats = (1 - 9 * (channels - centres).abs()).clamp(min=0).flatten(0, 1)
    a, b = haar_details(hats), haar_details(xray)
    spectra = torch.fft.rfft2(a).conj(), torch.fft.rfft2(b)
    products = torch.fft.irfft2((spectra[0] * spectra[1]).sum(1), s=xray.shape)
    for dim in (-2, -1):
        products = products.roll(reach, dim).narrow(dim, 0, 2 * reach + 1)
    a = a.flatten(1).double()
    gram = a @ a.T
    gram = gram + 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    found = products.flatten(1).double()
    share = (found * torch.linalg.solve(gram, found)).sum(0) / b.square().sum().clamp(min=1e-12)
    best = divmod(int(share.argmax()), 2 * reach + 1)
    return (best[0] - reach, best[1] - reach), share.reshape(products.shape[1:]).float()


def moved(x: Float[Tensor, "*c h w"], shift: tuple[int, int]) -> Float[Tensor, "*c h w"]:
    """x moved down and to the right, its border repeated."""
    rows, columns = (
        (torch.arange(n) - d).clamp(0, n - 1) for n, d in zip(x.shape[-2:], shift, strict=True)
    )
    return x[..., rows, :][..., columns]
