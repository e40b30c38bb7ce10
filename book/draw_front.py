"""Draw the front page's pictures of Parts I to V from results computed here, in about a minute.

`python book/draw_front.py` writes _static/part1.webp and the like (three columns, the problem above
its solution), and part1_narrow.webp and the like (the same tiles for a telephone).
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

from tutorial_lib.convolutional import conv_dictionary, split_lowpass
from tutorial_lib.convolutional_coding import csc_admm
from tutorial_lib.convolutional_learning import learn_filters
from tutorial_lib.convolutional_shifts import average_shifts, stack_shifts
from tutorial_lib.damaged_cubes import restore_damaged
from tutorial_lib.data import (
    Mixture,
    add_cube_noise,
    add_noise,
    bicubic,
    colour_cube,
    false_colour,
    luma,
    mixture,
    motorcycle,
    photograph,
    xray_pairs,
)
from tutorial_lib.dictionary import (
    dct_dictionary,
    denoise_dictionary,
    extract_patches,
    learn_dictionary,
)
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.winnet import split
from tutorial_lib.operators import blur, wavelet_synthesis
from tutorial_lib.plug_and_play import plug_and_play
from tutorial_lib.regression import edge_regression, linear_regression, visible_bands
from tutorial_lib.solvers import fista
from tutorial_lib.super_resolution import (
    CoupledDictionary,
    back_project,
    crop,
    downscale,
    super_resolve,
    upscale,
)
from tutorial_lib.thresholding import denoise_wavelet
from tutorial_lib.training import load_weights
from tutorial_lib.training.recipes import cunet_depth, equilibrium_implicit, nenet, winnet
from tutorial_lib.wavelets import ravel_coeffs, unravel_coeffs, wavedec2, waverec2

STATIC = Path(__file__).parent / "_static"
SIZE, GAP, LEVEL = 224, 7, 4  # three tiles fill a text column of 686 px; 224 = 14 * 2**4
Tile = Float[Tensor, "3 h w"]


def decibels(x: Tensor, clean: Tensor) -> str:
    """PSNR over all pixels and colours, for a label."""
    return f"{psnr(x, clean, ndim=clean.ndim).item():.1f} dB"


def mosaic(coeffs: list) -> Tile:
    """The usual picture of 2-D coefficients: approximation in gray, details in orange on black."""
    gray = coeffs[0] / coeffs[0].max()
    image = gray.expand(3, *gray.shape)
    orange = torch.tensor([1.0, 0.62, 0.25]).view(3, 1, 1)
    for level in coeffs[1:]:
        peak = max(band.abs().max() for band in level)
        h, v, d = (orange * (band.abs() / peak).pow(0.3) for band in level)
        v[..., 0] = h[..., 0, :] = d[..., 0] = d[..., 0, :] = 0.35  # the frame of the bands
        image = torch.cat([torch.cat([image, v], -1), torch.cat([h, d], -1)], -2)
    return image.clamp(0, 1)


def approximation(*, kept: float = 0.08) -> list[tuple[Tile, str]]:
    """Chapter 1: the largest 8 % of the wavelet coefficients, and the picture that they give."""
    clean = photograph("camera", size=SIZE)
    flat, layout = ravel_coeffs(wavedec2(clean, "sym8", mode="periodization", level=LEVEL))
    smallest = flat.abs().topk(round(kept * flat.numel())).values[-1]
    coeffs = unravel_coeffs(torch.where(flat.abs() >= smallest, flat, 0), layout)
    image = waverec2(coeffs, "sym8", mode="periodization")
    rebuilt = image.expand(3, SIZE, SIZE)
    return [
        (mosaic(coeffs), f"{100 * kept:.0f} % of the coefficients"),
        (rebuilt, f"what they give, {decibels(image, clean)}"),
    ]


def denoising(*, sigma: float = 0.15) -> list[tuple[Tile, str]]:
    """Chapter 2: hard thresholding of an undecimated Haar transform, at three sigma."""
    clean = photograph("coffee", size=SIZE, gray=False)
    noisy = add_noise(clean, sigma, seed=0)
    image = denoise_wavelet(
        noisy, sigma=sigma, wavelet="haar", threshold=3.0, shrink="hard", transform="undecimated"
    )
    return [
        (noisy, f"noisy, {decibels(noisy, clean)}"),
        (image, f"denoised, {decibels(image, clean)}"),
    ]


def shake() -> Float[Tensor, "21 21"]:
    """The kernel of a camera that moved along a curve while the shutter was open; sums to one."""
    s = np.linspace(-1, 1, 2001)
    columns, rows = 10 + 7 * s, 10 + 4 * s * np.abs(s) + 1.5 * np.sin(3 * s)
    counts, *_ = np.histogram2d(rows, columns, bins=np.arange(22) - 0.5)
    return torch.from_numpy(counts / counts.sum()).float()


def deconvolution(*, sigma: float = 0.005, lam: float = 3e-4) -> list[tuple[Tile, str]]:
    """Chapter 3: min_a 1/2 ||y - H W^-1 a||^2 + lam ||details of a||_1 by 200 steps of FISTA."""
    clean = photograph("astronaut", size=SIZE, gray=False)
    H = blur(shake(), (SIZE, SIZE))
    synthesis = wavelet_synthesis((SIZE, SIZE), wavelet="sym8", level=LEVEL)
    blurred = add_noise(H(clean), sigma, seed=0)
    weights = torch.full((SIZE * SIZE,), lam)
    weights[: math.prod(synthesis.layout[0])] = 0  # the approximation is not penalised
    image = synthesis(fista(H @ synthesis, blurred, weights, max_steps=200, rtol=0.0).value)
    return [
        (blurred, f"blurred, {decibels(blurred, clean)}"),
        (image, f"deconvolved, {decibels(image, clean)}"),
    ]


@torch.no_grad()
def details(*, sigma: float = 50 / 255) -> list[tuple[Tile, str]]:
    """Chapter 7: one detail channel inside WINNet, before and after the learned shrinkage."""
    y = add_noise(photograph("camera", size=SIZE), sigma, seed=0)
    net, level = winnet.trained(), torch.tensor(sigma).reshape(1, 1, 1, 1)
    before = net.linn[0](*split(y[None, None]), level)[1]
    after = net.shrinkage[0](before, level)
    return [
        ((0.5 + 0.8 * z[0, 0]).expand(3, SIZE, SIZE), f"a detail channel, {when}")
        for z, when in ((before, "noisy"), (after, "shrunk"))
    ]


def blind(*, sigma: float = 50 / 255) -> list[tuple[Tile, str]]:
    """Chapter 7: WINNet removes noise of a level that it is not told."""
    clean = photograph("chelsea", size=SIZE)
    noisy = add_noise(clean, sigma, seed=0)
    image, _ = winnet.denoise(noisy)
    return [
        (z.expand(3, SIZE, SIZE), f"{what}, {decibels(z, clean)}")
        for z, what in ((noisy, "noisy"), (image, "WINNet, blind"))
    ]


@torch.no_grad()
def plugged(*, sigma: float = 2.55 / 255) -> list[tuple[Tile, str]]:
    """Chapter 8: the same network inside an algorithm that deblurs."""
    clean = photograph("motorcycle", size=SIZE)
    H = blur(shake(), (SIZE, SIZE))
    blurred = add_noise(H(clean), sigma, seed=0)
    networks = {"denoise": winnet.trained(), "estimate": nenet.trained()}
    image = plug_and_play(blurred, H, **networks).value
    return [
        (z.expand(3, SIZE, SIZE), f"{what}, {decibels(z, clean)}")
        for z, what in ((blurred, "blurred"), (image, "plug and play"))
    ]


def learned(*, sigma: float = 25 / 255) -> list[tuple[Tile, str]]:
    """Chapter 9: atoms learned from the noisy photograph itself, and what they make of it."""
    clean = photograph("camera", size=SIZE)
    noisy = add_noise(clean, sigma, seed=0)
    patches = extract_patches(noisy, size=8)
    patches = patches - patches.mean(-1, keepdim=True)
    drawn = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))[:8000]]
    options = {"tol": 64 * (1.15 * sigma) ** 2, "method": "ksvd-approximate", "steps": 8}
    D, codes, _ = learn_dictionary(drawn, dct_dictionary(8, 16), **options)
    image = denoise_dictionary(noisy, D, sigma=sigma)
    atoms = D.mT[codes.norm(dim=0).argsort(descending=True)[:121]].reshape(-1, 8, 8)
    atoms = 0.5 + 0.5 * atoms / atoms.abs().amax((1, 2), keepdim=True)
    atoms = pad(atoms.repeat_interleave(2, 1).repeat_interleave(2, 2), (2, 2, 2, 2), value=0.1)
    sheet = atoms.reshape(11, 11, 20, 20).permute(0, 2, 1, 3).reshape(220, 220)
    sheet = pad(sheet, (2, 2, 2, 2), value=0.1).expand(3, SIZE, SIZE)
    rebuilt = image.expand(3, SIZE, SIZE)
    return [
        (sheet, "atoms, learned from noise"),
        (rebuilt, f"denoised, {decibels(image, clean)}"),
    ]


def enlarged() -> list[tuple[Tile, str]]:
    """Chapter 10: one code, two dictionaries: three times as many pixels a side."""
    whole = photograph("astronaut", size=None)
    clean = crop(whole[20 : 20 + 225, 110 : 110 + 225], scale=3)
    y = downscale(clean, scale=3)
    pair = CoupledDictionary(**load_weights("coupled3")[0])
    middle, image = upscale(y, scale=3), back_project(super_resolve(y, pair), y)
    return [
        (z[:SIZE, :SIZE].expand(3, SIZE, SIZE), f"{what}, {decibels(z, clean)}")
        for z, what in ((middle, "3 x, bicubic"), (image, "coupled"))
    ]


def guided() -> list[tuple[Tile, str]]:
    """Chapter 14: a depth map with a sixteenth of its pixels, and a photograph to guide it."""
    pair = motorcycle()
    z, y = (t[160 : 160 + SIZE, 330 : 330 + SIZE] for t in (pair.target, luma(pair.guide)))
    x = bicubic(z, scale=4)
    colours = torch.from_numpy(matplotlib.colormaps["viridis"](np.arange(256))[:, :3]).float()
    low, high = z.min(), z.max()
    return [
        (
            colours[(255 * (t - low) / (high - low)).round().clamp(0, 255).long()].movedim(-1, 0),
            f"{what}, RMSE {255 * (t - z).square().mean().sqrt():.1f}",
        )
        for t, what in ((x, "depth, 4 x"), (cunet_depth.super_resolve(x, y), "CU-Net"))
    ]


def radiograph() -> Mixture:
    """Chapters 15 and 16: a cup of coffee, painted over a portrait, and the X-ray of both."""
    _, visible, hidden = xray_pairs(size=SIZE, bundled=True)[0]
    return mixture(visible, hidden, ratio=0.5)


def painted_over() -> list[tuple[Tile, str]]:
    """What one is given."""
    mix = radiograph()
    return [(mix.visible, "the painting"), (mix.xray.expand(3, SIZE, SIZE), "its X-ray")]


def filtered() -> list[tuple[Tile, str]]:
    """The best linear filter of the painting's colours, and what it leaves of the X-ray."""
    mix = radiograph()
    return apart(linear_regression(mix.xray, mix.visible), mix, "linear")


def separated() -> list[tuple[Tile, str]]:
    """The curve of the painting's gray that leaves the fewest edges: free of ghosts."""
    mix = radiograph()
    bands = visible_bands(luma(mix.visible)[None], knots=48)
    surface = edge_regression(mix.xray, bands)
    return [(x, label.split(",")[0]) for x, label in apart(surface, mix, "few edges")]


def apart(surface: Tensor, mix: Mixture, name: str) -> list[tuple[Tile, str]]:
    """Both parts, each with the mean of the truth, which nothing in the X-ray tells."""
    surface = surface - surface.mean() + mix.surface.mean()
    parts = ((surface, mix.surface), (mix.xray - surface, mix.hidden))
    return [
        ((x / truth.max()).expand(3, SIZE, SIZE), f"{name}, {decibels(x, truth)}")
        for x, truth in parts
    ]


def convolutional(*, sigma: float = 25 / 255) -> list[tuple[Tile, str]]:
    """Chapter 17: filters from six small photographs, and a noisy one written with them."""
    names = ("astronaut", "coffee", "coins", "chelsea", "rocket", "brick")
    views = torch.stack([photograph(name, size=64)[None] for name in names])
    start = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    start = start / start.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    filters = learn_filters(split_lowpass(views)[1], start, 0.1, stride=4, steps=25).filters
    clean = photograph("camera", size=SIZE)
    low, high = split_lowpass(add_noise(clean, sigma, seed=0)[None])
    moved = stack_shifts(high, 2)
    z = csc_admm(moved, filters, 2 * sigma, stride=2, max_steps=25, rtol=0).value
    D = conv_dictionary(filters, clean.shape, stride=2)
    image = (low + average_shifts(D(z), 2, clean.shape))[0]
    shown = 0.5 + 0.5 * filters / filters.abs().amax((1, 2, 3), keepdim=True)
    shown = pad(torch.cat([shown, torch.full((4, 1, 8, 8), 0.1)])[:, 0], (0, 1, 0, 1), value=0.1)
    sheet = shown.reshape(6, 6, 9, 9).permute(0, 2, 1, 3).reshape(54, 54)
    sheet = pad(sheet, (1, 1, 1, 1), value=0.1).repeat_interleave(4, 0).repeat_interleave(4, 1)
    return [
        (sheet.expand(3, SIZE, SIZE), "filters, learned"),
        (image.expand(3, SIZE, SIZE), f"denoised, {decibels(image, clean)}"),
    ]


def settled(*, sigma: float = 25 / 255) -> list[tuple[Tile, str]]:
    """Chapter 18: one learned layer, repeated until nothing changes."""
    clean = photograph("coins", size=SIZE)
    noisy = add_noise(clean, sigma, seed=0)
    with torch.no_grad():
        image = equilibrium_implicit.trained()(noisy[None])[0]
    return [
        (z.expand(3, SIZE, SIZE), f"{what}, {decibels(z, clean)}")
        for z, what in ((noisy, "noisy"), (image, "equilibrium"))
    ]


def damaged(*, sigma: float = 95 / 255) -> list[tuple[Tile, str]]:
    """Chapter 19: a photograph as a cube of 31 bands, with every kind of damage."""
    clean = colour_cube("astronaut", size=SIZE)
    noisy = add_cube_noise(clean, "mixture", sigma=sigma, seed=0).cube
    return [
        (false_colour(z), f"{what}, {decibels(z, clean)}")
        for z, what in ((noisy, "31 bands"), (restore_damaged(noisy).cube, "restored"))
    ]


def paint(tile: Tile, label: str) -> Image.Image:
    """A tile with its label on a dark strip."""
    pixels = (tile.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels).convert("RGBA")
    strip = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(strip)
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 16)
    pen.rectangle((0, SIZE - 28, SIZE, SIZE), fill=(0, 0, 0, 165))
    pen.text((SIZE / 2, SIZE - 14), label, font=font, fill="white", anchor="mm")
    return Image.alpha_composite(image, strip)


def compose(rows: list[list[Image.Image]]) -> Image.Image:
    """Tiles in rows, with transparent gaps: the page shows through, light or dark."""
    step = SIZE + GAP
    page = Image.new("RGBA", (step * len(rows[0]) - GAP, step * len(rows) - GAP))
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            page.paste(tile, (j * step, i * step))
    return page


if __name__ == "__main__":
    parts = {
        "part1": (approximation, denoising, deconvolution),
        "part2": (details, blind, plugged),
        "part3": (learned, enlarged, guided),
        "part4": (painted_over, filtered, separated),
        "part5": (convolutional, settled, damaged),
    }
    for part, results in parts.items():
        pairs = [[paint(*tile) for tile in result()] for result in results]
        columns = [list(row) for row in zip(*pairs, strict=True)]
        for name, rows in {f"{part}.webp": columns, f"{part}_narrow.webp": pairs}.items():
            compose(rows).save(STATIC / name, quality=85, method=6)
            print(f"book/_static/{name}: {(STATIC / name).stat().st_size / 1000:.0f} kB")
