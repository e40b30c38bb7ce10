"""Pictures keep their samples, sliders work without a kernel."""

import base64
import io
import os
import re
import subprocess
import sys
from inspect import unwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.plots import COLORS, DPI, MAX_BYTES, WIDTH, explore, show, style


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("TUTORIAL_STATIC", raising=False)
    with plt.rc_context():
        yield
    plt.close("all")


def pixels(fig):
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)


def squares(image, zoom):
    """The 8-bit colour of each sample, repeated zoom x zoom."""
    colours = mpl.colormaps["gray"](np.asarray(image), bytes=True)[..., :3].astype(int)
    assert np.abs(colours - 255 * np.asarray(image)[..., None]).max() < 2
    return colours.repeat(zoom, axis=0).repeat(zoom, axis=1)


# show --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "count", "columns", "zoom"),
    [
        ((256, 256), 3, None, 2),
        ((256, 256), 1, None, 2),
        ((100, 77), 2, None, 7),
        ((64, 33), 4, 2, 18),
        ((31, 512), 3, None, 1),
        ((5, 5), 5, 3, 102),
    ],
)
@pytest.mark.parametrize("title", ["", "noisy, 20.1 dB"])
def test_each_sample_is_a_whole_square_of_pixels(shape, count, columns, zoom, title):
    """The figure holds exactly the images, enlarged by a whole number, 20 pixels apart."""
    style()
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.random(shape)) for _ in range(count)]
    fig = show(images, [title] * count, columns=columns)
    canvas = pixels(fig)
    columns = columns or count
    h, w = shape[0] * zoom, shape[1] * zoom
    head = 44 if title else 0
    rows = -(-count // columns)
    assert canvas.shape[:2] == (rows * (h + head + 20) - 20, columns * (w + 20) - 20)
    assert canvas.shape[1] <= WIDTH * DPI
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top, left = row * (h + head + 20) + head, column * (w + 20)
        part = canvas[top : top + h, left : left + w]
        assert (part == squares(image, zoom)).all()
        if title:
            assert canvas[top - head : top, left : left + w].min() < 128  # something is written


def test_saved_figures_are_those_pixels():
    style()
    image = np.random.default_rng(1).random((40, 30))
    fig = show([image])
    buffer = io.BytesIO()
    fig.savefig(buffer)
    saved = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    assert (saved == squares(image, 20)).all()


def test_colour_range_and_map():
    style()
    colour = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    canvas = pixels(show([colour]))
    expected = (colour.movedim(0, -1).numpy() * 255).repeat(20, 0).repeat(20, 1)
    assert np.abs(canvas - expected).max() <= 1
    ramp = torch.tensor([[-1.0, 0.0, 1.0, 9.0]])
    canvas = pixels(show([ramp], vmin=-1.0, vmax=1.0))[0, ::150, 0]
    assert canvas.tolist() == [0, 128, 255, 255]
    canvas = pixels(show([ramp], vmin=-1.0, vmax=1.0, cmap="coolwarm"))[0, ::150]
    assert canvas[0, 2] > canvas[0, 0]  # blue
    assert canvas[2, 0] > canvas[2, 2]  # red


def test_titles_are_kept_and_stay_in_their_column():
    images = [torch.zeros(40, 40)] * 9
    titles = [f"a title that is rather long {i}" for i in range(9)]
    fig = show(images, titles)
    assert [ax.get_title() for ax in fig.axes] == titles
    fig.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_gradients_and_other_number_types_are_drawn():
    show([torch.zeros(4, 4, requires_grad=True), np.zeros((4, 4), dtype=bool), torch.ones(4, 4)])


@pytest.mark.parametrize(
    ("images", "titles", "message"),
    [
        ([], None, r"got sizes \[\] and 0 titles"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], None, r"\(4, 4\), \(4, 5\)"),
        ([np.zeros((4, 4))], ["one", "two"], "and 2 titles"),
        ([np.zeros((4, 4)), np.zeros((4, 4))], ["one"], "and 1 titles"),
        ([np.zeros(4)], None, r"\(h, w\) or \(3, h, w\), got \(4,\)"),
        ([np.zeros((2, 4, 4))], None, r"got \(2, 4, 4\)"),
    ],
)
def test_show_refuses(images, titles, message):
    with pytest.raises(ValueError, match=message):
        unwrap(show)(images, titles)


# explore -----------------------------------------------------------------------------------------

OPTIONS = {"label": "threshold", "alt": 'A "square" & its <border>,', "caption": "Drag: t < 1."}


def picture(value):
    return show([torch.full((32, 32), float(value))], [f"t = {value:g}"])


def frames(text):
    """(alternative text, label, hidden, decoded picture) of each image in the page."""
    found = re.findall(
        r'<img alt="([^"]*)" data-label="([^"]*)" src="data:image/webp;base64,([^"]*)"( hidden)?>',
        text,
    )
    assert len(found) == text.count("<img")
    decoded = [Image.open(io.BytesIO(base64.b64decode(data))) for _, _, data, _ in found]
    assert {image.format for image in decoded} == {"WEBP"}
    return [(f[0], f[1], bool(f[3]), image) for f, image in zip(found, decoded, strict=True)]


def test_static_slider(monkeypatch):
    monkeypatch.setenv("TUTORIAL_STATIC", "1")
    values = [0.0, 0.25, 0.5, 1.0]
    text = explore(picture, values, start=2, **OPTIONS).data
    assert plt.get_fignums() == []  # each figure was closed
    found = frames(text)
    assert len(found) == 4
    for value, (alt, label, hidden, image) in zip(values, found, strict=True):
        assert alt == f"A &quot;square&quot; &amp; its &lt;border&gt;, threshold = {value:g}"
        assert label == f"threshold = {value:g}"
        assert hidden == (value != 0.5)
        drawn = pixels(picture(value))
        assert image.size == drawn.shape[1::-1]
        assert np.abs(np.asarray(image.convert("L"))[100:] - drawn[100:, :, 0]).max() <= 8
    (slider,) = re.findall(r"<input [^>]*>", text)
    for attribute in ('type="range"', 'min="0"', 'max="3"', 'value="2"', 'aria-label="threshold"'):
        assert attribute in slider
    assert 'aria-valuetext="threshold = 0.5"' in slider
    assert re.search("<output[^>]*>threshold = 0.5</output>", text)
    assert "<figcaption>Drag: t &lt; 1.</figcaption>" in text
    assert "http" not in text


@pytest.mark.parametrize("count", [2, 20])
def test_static_slider_takes_2_to_20_values(monkeypatch, count):
    monkeypatch.setenv("TUTORIAL_STATIC", "1")
    page = explore(picture, range(count), form="{:d} px", **OPTIONS).data
    assert [label for _, label, _, _ in frames(page)] == [
        f"threshold = {i} px" for i in range(count)
    ]


def test_static_slider_stays_small(monkeypatch):
    """Frames of noise, hard to compress, are drawn worse until all fit; or refused."""
    monkeypatch.setenv("TUTORIAL_STATIC", "1")
    assert MAX_BYTES == 1_500_000
    noise = np.random.default_rng(0).random((100, 100))
    sizes = []
    for limit in (MAX_BYTES, 130_000, 85_000):
        monkeypatch.setattr("tutorial_lib.plots.MAX_BYTES", limit)
        page = explore(lambda value: show([noise * value]), [0.5, 0.8, 1.0], **OPTIONS).data
        data = [base64.b64decode(d) for d in re.findall('base64,([^"]*)', page)]
        assert len(data) == 3
        sizes.append(sum(map(len, data)))
        assert sizes[-1] <= limit
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr("tutorial_lib.plots.MAX_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        explore(picture, [0, 1], **OPTIONS)


@pytest.mark.parametrize("static", ["", "1"])
@pytest.mark.parametrize(
    ("values", "start"), [([], 0), ([1], 0), (range(21), 0), ([1, 2], 2), ([1, 2], -1)]
)
def test_explore_refuses(monkeypatch, static, values, start):
    monkeypatch.setenv("TUTORIAL_STATIC", static)
    message = f"2 to 20 values .* got {len(values)} values and start = {start}"
    with pytest.raises(ValueError, match=message):
        explore(picture, values, start=start, **OPTIONS)


def test_live_slider_calls_draw():
    pytest.importorskip("ipywidgets")
    drawn = []

    def draw(value):
        drawn.append(value)
        return picture(value)

    widget = explore(draw, [0.0, 0.5, 1.0], start=1, **OPTIONS)
    (slider,) = (child for child in widget.children if hasattr(child, "options"))
    assert slider.description == "threshold"
    assert [name for name, _ in slider.options] == ["0", "0.5", "1"]
    assert slider.value == 0.5
    widget.update()
    slider.value = 1.0
    assert drawn[-2:] == [0.5, 1.0]
    assert plt.get_fignums() == []


def test_without_ipywidgets_the_slider_is_static(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert len(frames(explore(picture, [0, 1], **OPTIONS).data)) == 2


# style -------------------------------------------------------------------------------------------


def test_style_sets_what_it_says():
    plt.rcdefaults()
    style()
    settings = plt.rcParams
    assert settings["figure.dpi"] == DPI
    assert settings["figure.figsize"][0] == WIDTH
    assert settings["figure.facecolor"] == "white"
    assert settings["image.cmap"] == "gray"
    assert settings["axes.prop_cycle"].by_key()["color"] == list(COLORS.values())
    assert len(set(COLORS.values())) == len(COLORS)


def test_importing_changes_no_setting():
    """Only `style()` does."""
    code = (
        "import matplotlib as m; before = dict(m.rcParams); import tutorial_lib.plots; "
        "assert dict(m.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
