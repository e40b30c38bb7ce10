"""The command line: python -m tutorial_lib --help."""

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

import tutorial_lib

METHODS = {
    "wavelet": "undecimated sym4, BayesShrink, soft threshold (chapter 02_thresholding)",
    "winnet": "invertible network with learned wavelets, blind (chapter 07_winnet)",
    "lowrank": "cubes: few spectra, damage left out (chapter 19_hyperspectral_noise)",
    "decsc": "cubes: eigenimages as sparse codes in equilibrium (chapter 20_decsc)",
}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def about() -> None:
    """Sparsity Meets Deep Networks: what the book holds, and its methods on your own pictures."""


@app.command("list")
def list_everything() -> None:
    """Print the chapters, the methods, the networks, and the weights with their origin."""
    from tutorial_lib.training import load_weights, recipes, shipped
    from tutorial_lib.training.record import describe

    print("chapters")
    notebooks = sorted((Path(tutorial_lib.__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join(cells[0]["source"]).splitlines()
        title = next((line[2:] for line in lines if line.startswith("# ")), "")
        print(f"  notebooks/{path.name:<32} {title}")
    if not notebooks:  # installed without the repository around it
        print("  https://sparsity-meets-deep-networks.github.io/book/")
    print("methods of denoise")
    for name, what in METHODS.items():
        print(f"  {name:<42} {what}")
    print("networks to train and to evaluate")
    for name, what in recipes.names().items():
        print(f"  {name:<42} {what}")
    print("weights")
    for name in shipped():
        print(f"  {name:<42} {describe(load_weights(name)[1])}")


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="One of the networks that `list` names.")],
    profile: Annotated[
        str | None, typer.Option(help="smoke, cpu or full; TUTORIAL_PROFILE if not given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the profile's number.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the last checkpoint in DIR, or begin anew.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For checkpoints and weights; runs/NAME-PROFILE."),
    ] = None,
) -> None:
    """Train a network, also under `accelerate launch`; writes DIR/NAME.safetensors and a record."""
    from accelerate import PartialState

    from tutorial_lib.training import PROFILES, fit, profile_name, recipes, save_weights

    module = recipes.find(name)
    profile = profile or profile_name()
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: allowed are {', '.join(PROFILES)}")
    settings = dict(module.PROFILES[profile])
    usual = settings.pop("steps")
    out = out or Path("runs") / f"{name}-{profile}"
    run = fit(
        name,
        module.recipe(**settings),
        steps=usual if steps is None else steps,
        seed=settings.get("seed", 0),
        out=out,
        resume=resume,
        config={"profile": profile, **settings},
    )
    world = PartialState()
    if world.is_main_process:
        path = save_weights(name, run.network, run.record, folder=out)
        print(f"{path}: {run.origin}")
    if world.num_processes > 1:
        world.destroy_process_group()


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="A network that `list` names under weights.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of pictures; or of pairs X_guide.png and X_disparity.png, or with two "
            "folders guide and disparity (or rgb and nir) of equal names; with --noise, of cubes: "
            "scenes as CAVE's, folders with an image for each band, .mat, .npy, .tif.",
        ),
    ],
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the noise that is added, in 1/255; default 25. For cubes "
            "the upper end of its range over the bands; default 95."
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(help="By which the targets of pairs are reduced; the network's own."),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="For cubes: iid, noniid, corr, stripes, deadlines, impulse or mixture "
            "(chapter 19_hyperspectral_noise)."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the noise of cubes, the same for each; default 0.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score the weights that come with the package, per picture and in the mean.

    Denoisers: PSNR and SSIM. Networks with a guide: RMSE in 1/255, also of bicubic, and PSNR. Of
    cubes, also by wavelet and lowrank: PSNR, SSIM, SAM in radians, and how equilibria converged.
    """
    from tutorial_lib.training import cube_scores, cubes, evaluation, recipes

    if noise is not None:
        if scale is not None:
            raise ValueError(f"--scale {scale}: is for networks with a guide, --noise for cubes")
        told, lines = cube_scores.evaluate_cubes(
            name, data, noise=noise, sigma=sigma, seed=seed or 0
        )
        if as_json:
            print(json.dumps(told))
            return
        _table(told["images"], told["metric"])
        print(*lines, sep="\n", end="\n" if lines else "")
        return
    if seed is not None:
        raise ValueError(f"--seed {seed}: is for --noise; that of pictures follows their names")
    module = recipes.find(name)
    begin = time.perf_counter()
    if hasattr(module, "super_resolve"):
        if sigma is not None:
            raise ValueError(f"--sigma {sigma:g}: {name} is no denoiser, it takes --scale")
        if scale not in (None, module.SCALE):
            raise ValueError(f"--scale {scale}: {name} was trained for {module.SCALE}")
        images = evaluation.evaluate_guided(module.super_resolve, data, scale=module.SCALE)
    elif hasattr(module, "denoise"):
        if scale is not None:
            raise ValueError(f"--scale {scale}: {name} is a denoiser, it takes --sigma")
        sigma = 25.0 if sigma is None else sigma
        if not 0 <= sigma <= 255:
            raise ValueError(f"--sigma {sigma:g}: expected 0 to 255")
        images = evaluation.evaluate(module.denoise, data, sigma=sigma / 255)
    elif cubes.for_cubes(name):
        raise ValueError(f"{name} is for cubes: say with --noise which is to be added")
    else:
        raise ValueError(f"{name} makes no pictures: there is nothing to evaluate on DIR")
    seconds = time.perf_counter() - begin
    metric = evaluation.mean(images)
    if as_json:
        print(json.dumps({"name": name, "metric": metric, "images": images, "seconds": seconds}))
        return
    _table(images, metric)


def _table(images: dict[str, dict[str, float]], metric: dict[str, float]) -> None:
    width = max(map(len, [*images, "mean"]))
    print(" " * width, *(f"{key:>12}" for key in metric))
    for file, scores in [*images.items(), ("mean", metric)]:
        print(f"{file:<{width}}", *(f"{value:12.4f}" for value in scores.values()))


@app.command()
def denoise(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Photograph, gray or colour; or a hyperspectral cube: .mat, .npy, TIFF with a "
            "page for each band, folder with an image for each band.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="PNG, TIFF or JPEG to write; of a cube .mat, .npy or TIFF."
        ),
    ],
    method: Annotated[str, typer.Option(help=f"One of: {', '.join(METHODS)}.")] = "wavelet",
    sigma: Annotated[
        str,
        typer.Option(
            metavar="S|auto",
            help="Standard deviation of the noise in units of 1/255 of full scale (gray levels of "
            "an 8-bit picture; of a cube, 1/255 of its white); auto: estimate it.",
        ),
    ] = "auto",
    key: Annotated[
        str | None, typer.Option(help="Which variable of a .mat file that holds several.")
    ] = None,
    bands_axis: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2,
            help="Which axis of the stored array is the spectrum; that of a .mat file is the last "
            "one, 2, of other files the first, 0.",
        ),
    ] = None,
    peak: Annotated[
        float | None,
        typer.Option(
            help="The stored value of a cube that is white, 1 for the methods; a robust largest "
            "value if not given. OUT has the unit of IN in any case."
        ),
    ] = None,
) -> None:
    """Remove noise from a photograph or a hyperspectral cube of any size.

    16-bit pictures stay 16-bit where OUT can; cubes keep their unit, and are written as float32,
    or from TIFF to TIFF in the integers of IN. Image methods take cubes band by band.
    """
    from tutorial_lib.data import files
    from tutorial_lib.training import cubes, photographs

    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: allowed are {', '.join(METHODS)}")
    level = _sigma(sigma)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target}: OUT is IN; name another file, so that the original is kept")
    of_cubes = {"bands_axis": bands_axis, "peak": peak}
    if cubes.for_cubes(method) or source.is_dir() or any(v is not None for v in of_cubes.values()):
        array = None
    else:
        array = files.read_array(source, name=key)
    if array is None or array.ndim == 3 and len(array) not in (1, 3):
        del array
        lines = cubes.denoise_cube_file(
            source, target, method=method, sigma=level, key=key, **of_cubes
        )
        print(*lines, sep="\n")
        return
    print(photographs.denoise_file(source, target, array, method=method, sigma=level))


@app.command("guided-sr")
def guided_super_resolution(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Small image: depth, infrared.")],
    guide: Annotated[Path, typer.Argument(help="Photograph of the same scene, larger by SCALE.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="PNG, TIFF or JPEG to write.")],
    method: Annotated[str, typer.Option(help="A network that `list` names.")] = "cunet_depth",
) -> None:
    """Enlarge a depth map or an infrared image, guided by a photograph of the same scene."""
    from tutorial_lib.training import photographs

    print(photographs.super_resolve_file(source, guide, target, method=method))


@app.command()
def separate(
    visible: Annotated[Path, typer.Argument(help="Photograph of the painting.")],
    xray: Annotated[Path, typer.Argument(help="Its mixed X-ray, of the same size.")],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT_DIR", help="For surface and hidden (.png, .npy), the record, checkpoints."
        ),
    ],
    profile: Annotated[
        str | None, typer.Option(help="smoke, cpu or full; TUTORIAL_PROFILE if not given.")
    ] = None,
) -> None:
    """Separate a mixed X-ray into that of the painting and that of what it covers.

    Trained on these two pictures alone; a run that was killed goes on when called again.
    """
    from tutorial_lib.training import profile_name
    from tutorial_lib.training.separate import separate_files

    record = separate_files(visible, xray, out, profile=profile or profile_name())
    down, right = record["shift"]
    height, width = record["size"]
    print(
        f"{out}: surface and hidden, {width} x {height}, {record['share']:.0%} and "
        f"{1 - record['share']:.0%} of the X-ray; the picture was moved by {down} pixels down and "
        f"{right} right; {record['seconds']:.1f} s"
    )


def _sigma(text: str) -> float | None:
    """The option --sigma as a fraction of full scale; None for auto."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"--sigma {text}: expected auto, or a number of at least 0")
    return value / 255


def main() -> None:
    """Run the command line: a refusal is one line on stderr and exit code 2."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its remarks would be a second line
    try:
        sys.exit(app(standalone_mode=False))
    except (ValueError, OSError, FloatingPointError) as error:
        message = str(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error, from typer or from click
            raise
        message = error.format_message()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
