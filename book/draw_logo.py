"""Draw the logo: the Haar coefficients of a box, a column for each scale, as layers of a network.

Orange discs are the coefficients that are not zero (the larger, the larger), joined along their
tree; blue dots are the zeros; thin lines join neighbouring layers, as a dense network would.
`python book/draw_logo.py` writes logo.svg, mark.svg (without words) and favicon.svg.
"""

import math
from pathlib import Path

import torch
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

from tutorial_lib.wavelets import wavedec

STATIC = Path(__file__).parent / "_static"
BLUE, ORANGE, GRAY = "#2f80c8", "#dd7410", "#7d8794"  # all readable on white and on black


def layers(*, level: int) -> list[list[float]]:
    """Magnitudes of the Haar details of a box of 2**level samples: 2**(level-1), ..., 2, 1."""
    n = 2**level
    start = n // 4 - 1  # odd, so that both jumps fall inside a pair and are seen at every scale
    x = torch.zeros(n, dtype=torch.float64)
    x[start : start + n // 2] = 1
    scales = reversed(wavedec(x, "haar", level=level)[1:])
    return [torch.where(d.abs() > 1e-9, d.abs(), 0).tolist() for d in scales]


def mark(*, level: int, width: float, height: float, radius: float) -> list[str]:
    """SVG elements of the network, finest scale on the left, `radius` that of the largest disc."""
    scales = layers(level=level)
    peak = max(max(scale) for scale in scales)
    step = (width - 2 * radius) / (level - 1)
    gap = (height - 2 * radius) / (len(scales[0]) - 1)

    def place(j: int, k: int) -> tuple[float, float]:
        return radius + j * step, radius + gap * ((k + 0.5) * 2**j - 0.5)

    def line(j: int, k: int, parent: int, style: str) -> str:
        (x1, y1), (x2, y2) = place(j, k), place(j + 1, parent)
        return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" {style}/>'

    thin = f'stroke="{BLUE}" stroke-width="{radius / 9:.2f}" stroke-opacity="0.6"'
    thick = f'stroke="{ORANGE}" stroke-width="{radius / 3:.2f}"'
    pairs = [(j, k) for j in range(level - 1) for k in range(len(scales[j]))]
    parts = [line(j, k, p, thin) for j, k in pairs for p in range(len(scales[j + 1]))]
    parts += [line(j, k, k // 2, thick) for j, k in pairs if scales[j][k] and scales[j + 1][k // 2]]
    for j, scale in enumerate(scales):
        for k, value in enumerate(scale):
            x, y = place(j, k)
            size = radius * max(math.sqrt(value / peak), 0.62) if value else 0.36 * radius
            color = ORANGE if value else BLUE
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.2f}" fill="{color}"/>')
    return parts


def word(text: str, *, x: float, y: float, size: float, color: str) -> str:
    """The outlines of a line of text as one SVG path: looks the same where no font is installed."""
    font = FontProperties(family="DejaVu Sans", weight="bold")
    outline = TextPath((0, 0), text, size=size, prop=font)
    letters = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    path = ""
    for vertices, code in outline.iter_segments(curves=True, simplify=False):
        if code == Outline.CLOSEPOLY:
            path += "Z"
            continue
        points = zip(vertices[::2], vertices[1::2], strict=True)
        path += letters[code] + " ".join(f"{x + px:.2f} {y - py:.2f}" for px, py in points)
    return f'<path d="{path}" fill="{color}"/>'


def svg(parts: list[str], *, width: float, height: float, title: str) -> str:
    """The finished drawing on a transparent ground."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>", ""])


def draw() -> dict[str, str]:
    """File name -> contents, the same bytes each time."""
    title = "Sparsity Meets Deep Networks"
    network = mark(level=4, width=104, height=104, radius=6.5)
    words = [
        word("Sparsity", x=124, y=36, size=30, color=ORANGE),
        word("meets", x=124, y=63, size=20, color=GRAY),
        word("deep networks", x=124, y=95, size=30, color=BLUE),
    ]
    icon = mark(level=3, width=64, height=64, radius=8)
    return {
        "logo.svg": svg(network + words, width=378, height=104, title=title),
        "mark.svg": svg(network, width=104, height=104, title=title),
        "favicon.svg": svg(icon, width=64, height=64, title=title),
    }


if __name__ == "__main__":
    for name, drawing in draw().items():
        (STATIC / name).write_text(drawing, encoding="utf-8", newline="\n")
        print(f"book/_static/{name}: {len(drawing)} bytes")
