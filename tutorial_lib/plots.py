"""Pictures of the book: one style, image rows at native resolution, a slider that works offline."""

import base64
import contextlib
import html
import io
import math
import os
from collections.abc import Callable, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

DPI = 200
WIDTH = 7.9  # inches: what the page has room for
MAX_FRAMES = 20
MAX_BYTES = 1_500_000  # of all frames of one slider together

# Okabe and Ito's colours: distinguishable with every kind of colour vision.
COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#E69F00",
    "black": "#222222",
}


def style() -> None:
    """Set the book's figure style: fonts, sizes, colour-blind-safe colours, white paper."""
    plt.rcParams.update(
        {
            "figure.dpi": DPI,
            "figure.figsize": (WIDTH, 3.2),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.prop_cycle": mpl.cycler(color=list(COLORS.values())),
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "legend.frameon": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )
    with contextlib.suppress(NameError):  # a notebook would crop figures, and pixels off the grid
        get_ipython().run_line_magic(  # noqa: F821
            "config", "InlineBackend.print_figure_kwargs = {'bbox_inches': None}"
        )


def show(
    images: Sequence[Tensor | np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    vmin: float = 0.0,
    vmax: float = 1.0,
    cmap: str = "gray",
) -> Figure:
    """Images of one size in a row (or in rows of `columns`), each sample a whole square of pixels.

    Args:
        images: each (h, w) gray or (3, h, w) colour, all of one size.
        titles: one line above each image.
        columns: images a row; all in one row by default.
        vmin, vmax: the intensities drawn black and white (gray images; colour is clipped to them).
        cmap: colour map of gray images.

    Returns:
        the figure, at most `WIDTH` inches wide.

    Raises:
        ValueError: no images, images of different sizes, or more or fewer titles than images.
    """
    arrays = [_image(image) for image in images]
    titles = [""] * len(arrays) if titles is None else list(titles)
    if not arrays or len({a.shape[:2] for a in arrays}) > 1 or len(titles) != len(arrays):
        raise ValueError(
            f"show needs images of one size and a title for each, got sizes "
            f"{[a.shape[:2] for a in arrays]} and {len(titles)} titles"
        )
    columns = min(columns or len(arrays), len(arrays))
    rows = math.ceil(len(arrays) / columns)
    h, w = arrays[0].shape[:2]
    gap, head = 20, 44 if any(titles) else 0
    room = int(WIDTH * DPI) - gap * (columns - 1)
    zoom = max(1, min(room // (columns * w), max(1, 600 // w)))
    width = columns * w * zoom + gap * (columns - 1)
    height = rows * (h * zoom + head) + gap * (rows - 1)
    fig = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="none")
    for i, (array, title) in enumerate(zip(arrays, titles, strict=True)):
        row, column = divmod(i, columns)
        left = column * (w * zoom + gap)
        bottom = height - (row + 1) * (h * zoom + head) - row * gap
        box = (left / width, bottom / height, w * zoom / width, h * zoom / height)
        ax = fig.add_axes(box)
        ax.imshow(array.clip(vmin, vmax), cmap=cmap, vmin=vmin, vmax=vmax, aspect="auto")
        ax.set_axis_off()
        ax.set_title(title, fontsize=min(9, 1.35 * 72 * w * zoom / DPI / max(len(title), 1)), pad=4)
    return fig


def explore(
    draw: Callable[[object], Figure],
    values: Sequence,
    *,
    label: str,
    alt: str,
    caption: str = "",
    start: int = 0,
    form: str = "{:g}",
):
    """A slider over `draw(value)`, one figure for each value.

    With TUTORIAL_STATIC=1 (set by `make book`), or where ipywidgets is missing, every frame is
    rendered once and embedded as WebP in HTML that needs no kernel and no network. In a live
    kernel the slider calls `draw`.

    Args:
        draw: value -> figure.
        values: 2 to 20 values of the slider.
        label: name of the value, shown beside the slider.
        alt: what the pictures show, for readers who cannot see them.
        caption: a line below the figure.
        start: index of the value shown first; that picture should make the point alone.
        form: how a value is printed.

    Raises:
        ValueError: fewer than 2 or more than 20 values, or `start` outside them.
    """
    values = list(values)
    if not 2 <= len(values) <= MAX_FRAMES or not 0 <= start < len(values):
        raise ValueError(
            f"explore needs 2 to {MAX_FRAMES} values and a start among them, "
            f"got {len(values)} values and start = {start}"
        )
    labels = [f"{label} = {form.format(value)}" for value in values]
    if os.environ.get("TUTORIAL_STATIC") != "1":
        try:
            return _widget(draw, values, label, form, start)
        except ImportError:
            pass
    from IPython.display import HTML

    return HTML(_static(draw, values, labels, alt, caption, start))


def _widget(draw: Callable, values: list, label: str, form: str, start: int):
    from ipywidgets import SelectionSlider, interactive

    def update(value: object) -> None:
        from IPython.display import display

        fig = draw(value)
        display(fig)
        plt.close(fig)

    slider = SelectionSlider(
        options=[(form.format(v), v) for v in values],
        value=values[start],
        description=label,
        continuous_update=False,
    )
    return interactive(update, value=slider)


def _static(
    draw: Callable, values: list, labels: list[str], alt: str, caption: str, start: int
) -> str:
    frames = []
    for value in values:
        fig = draw(value)
        fig.canvas.draw()
        frames.append(Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()))
        plt.close(fig)
    images = "".join(
        f'<img alt="{html.escape(f"{alt} {name}")}" data-label="{html.escape(name)}" '
        f'src="data:image/webp;base64,{base64.b64encode(data).decode()}"'
        f"{'' if i == start else ' hidden'}>"
        for i, (name, data) in enumerate(zip(labels, _webp(frames), strict=True))
    )
    update = (
        "const f=this.closest('figure');f.querySelectorAll('img').forEach((m,i)=>{"
        "m.hidden=i!=this.value;if(!m.hidden){f.querySelector('output').value=m.dataset.label;"
        "this.setAttribute('aria-valuetext',m.dataset.label)}})"
    )
    name = html.escape(labels[start])
    return (
        f'<figure class="explore" style="margin:1em 0">{images}'
        '<div style="display:flex;gap:1em;align-items:center">'
        f'<input type="range" style="flex:1" min="0" max="{len(values) - 1}" value="{start}" '
        f'aria-label="{html.escape(labels[0].split(" = ")[0])}" aria-valuetext="{name}" '
        f'oninput="{update}"><output style="min-width:9em">{name}</output></div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _webp(frames: list[Image.Image]) -> list[bytes]:
    """The best quality at which all frames together stay below `MAX_BYTES`."""
    for shrink, quality in ((1, 90), (1, 75), (1, 60), (2, 90), (2, 75), (2, 60), (2, 40)):
        data = []
        for frame in frames:
            buffer = io.BytesIO()
            frame.reduce(shrink).save(buffer, "WEBP", quality=quality)
            data.append(buffer.getvalue())
        if sum(map(len, data)) <= MAX_BYTES:
            return data
    raise ValueError(f"the frames need more than {MAX_BYTES} bytes: draw fewer or smaller ones")


def _image(image: Tensor | np.ndarray) -> np.ndarray:
    array = np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)
    if array.ndim == 3 and array.shape[0] == 3:
        return array.transpose(1, 2, 0)
    if array.ndim == 2:
        return array
    raise ValueError(f"an image is (h, w) or (3, h, w), got {array.shape}")
