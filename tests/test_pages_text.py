"""What the front page and the README say and show is what the code computes."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tutorial_lib.data import add_noise, photograph, read_image, write_image
from tutorial_lib.metrics import psnr

ROOT = Path(__file__).parent.parent


def script(name: str) -> ModuleType:
    """A script of book/, imported without being run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_logo_is_drawn_by_its_script() -> None:
    for name, drawing in script("draw_logo").draw().items():
        assert (ROOT / "book/_static" / name).read_bytes() == drawing.encode(), name


def test_the_logo_lights_the_coefficients_that_are_not_zero() -> None:
    lit = [sum(value > 0 for value in scale) for scale in script("draw_logo").layers(level=4)]
    assert lit == [2, 2, 2, 1]  # two jumps, seen once at each scale until they meet: seven


@pytest.mark.parametrize("part", [1, 2, 3, 4, 5])
def test_the_numbers_of_the_front_pictures_are_computed(part: int) -> None:
    front = script("draw_front")
    results = {
        1: (front.approximation, front.denoising, front.deconvolution),
        2: (front.details, front.blind, front.plugged),
        3: (front.learned, front.enlarged, front.guided),
        4: (front.painted_over, front.filtered, front.separated),
        5: (front.convolutional, front.settled, front.damaged),
    }
    tiles = [tile for result in results[part] for tile in result()]
    computed = [float(d) for _, label in tiles for d in re.findall(r"([\d.]+) dB", label)]
    intro = (ROOT / "book/intro.md").read_text(encoding="utf-8")
    alts = re.findall(rf"part{part}(?:_narrow)?\.webp\n:alt: (.*)", intro)
    assert len(alts) == 2
    assert len(computed) == {1: 5, 2: 4, 3: 3, 4: 2, 5: 5}[part]
    for alt in alts:
        told = [float(number) for number in re.findall(r"([\d.]+) dB", alt)]
        assert told == pytest.approx(computed, abs=0.11)  # one digit, rounded on any machine


def test_the_front_pictures_are_small() -> None:
    for picture in (ROOT / "book/_static").glob("*.webp"):
        assert picture.stat().st_size < 150_000, picture


def test_the_example_of_the_readme_denoises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = photograph("coffee", size=64, gray=False)
    write_image(tmp_path / "noisy.png", add_noise(clean, 0.1, seed=0))
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1], {})
    noisy, restored = (psnr(read_image(n), clean, ndim=3) for n in ("noisy.png", "clean.png"))
    assert restored > noisy + 3


def test_the_readme_points_at_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    colab = "https://colab.research.google.com/github/sparsity-meets-deep-networks/book/blob/main/"
    targets = re.findall(r"\]\(([^)#]+)\)", readme) + re.findall(r'src="([^"]+)"', readme)
    layout = re.search(r"```text\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    targets = [target.removeprefix(colab) for target in targets] + [
        row.split()[0] for row in layout
    ]
    for target in targets:
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_readme_asks_the_questions_of_the_chapters() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for chapter in sorted((ROOT / "book/chapters").glob("*.md")):
        question = re.search(r"^\*\*(.+\?)\*\*$", chapter.read_text(encoding="utf-8"), re.MULTILINE)
        row = f"(notebooks/{chapter.stem}.ipynb) | {question[1]} |"
        assert row in readme, f"README.md has no row with {row}"


def test_chapter_7_quotes_chapter_2() -> None:
    """BM3D on the first six photographs."""
    chapters = ROOT / "book" / "chapters"
    listed = re.search(r"bm3d_psnr = \[(.*)\]", (chapters / "02_thresholding.md").read_text())[1]
    quoted = re.search(r"BM3D reaches ([\d.]+) dB", (chapters / "07_winnet.md").read_text())[1]
    six = [float(number) for number in listed.split(",")]
    assert len(six) == 6 and abs(sum(six) / 6 - float(quoted)) < 0.005
