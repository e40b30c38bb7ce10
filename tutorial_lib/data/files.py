"""The reader's own files: images, arrays and cubes in, images out."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

_UNITS = {"bool": 1, "uint8": 255, "uint16": 65535}  # what is 1.0; floats are taken as they are
_DEPTHS = {".png": (8, 16), ".jpg": (8,), ".jpeg": (8,), ".tif": (8, 16), ".tiff": (8, 16)}


def read_image(path: str | Path, *, name: str | None = None) -> Float[Tensor, "..."]:
    """Read an image or a cube from any of the usual files.

    Args:
        path: an image that Pillow reads (8 or 16 bits a sample; gray, colour, palette, alpha; the
            first frame of an animation), a `.tif` also with many pages, a `.npy` array, or a
            `.mat` file of any version.
        name: which variable of a `.mat` file; not needed where it holds one array, or one with
            three axes.

    Returns:
        float32, (h, w) or (c, h, w). Integers are divided by their type's largest value; floating
        point numbers are taken as intensities in [0, 1], and kept where noise has carried them
        a little beyond. Transparent pixels are laid on white, a camera's orientation is applied.
        MATLAB cubes are read as (h, w, c), TIFF pages are the channels, `.npy` is (c, h, w), or
        (h, w, c) where only its last axis is 1, 3 or 4.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: empty or damaged files, NaN, types and shapes that are not an image's.

    >>> import skimage
    >>> read_image(f"{skimage.__path__[0]}/data/camera.png").shape
    torch.Size([512, 512])
    """
    return as_image(read_array(path, name=name), source=path)


def read_array(path: str | Path, *, name: str | None = None, stored: bool = False) -> np.ndarray:
    """The samples as the file stores them, (h, w) or (c, h, w): `read_image` before scaling.

    With `stored` the axes of `.mat` and `.npy` arrays keep the order of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    try:
        if suffix == ".mat":
            array = _read_mat(path, name)
            return array if stored or array.ndim != 3 else np.moveaxis(array, -1, 0)
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            return array if stored else _channels_first(array)
        return _read_tiff(path) if suffix in (".tif", ".tiff") else _read_pillow(path)
    except Exception as error:  # decoders fail in every way that a damaged file can
        raise ValueError(f"{path}: cannot be read ({error or type(error).__name__})") from error


def as_image(array: np.ndarray, *, source: str | Path = "array") -> Float[Tensor, "..."]:
    """Scale the samples of a file to float32 intensities; refuse what is not an image."""
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"{source}: expected shape (h, w) or (c, h, w), got {array.shape}")
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not np.isfinite(low + high):
            raise ValueError(f"{source}: holds NaN or infinite values")
        if low < -1 or high > 2:
            raise ValueError(
                f"{source}: floating point values must be intensities in [0, 1] (noise may leave "
                f"it, down to -1 and up to 2), got [{low:g}, {high:g}]"
            )
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.name not in _UNITS:
        raise ValueError(f"{source}: {array.dtype} is not one of {', '.join(_UNITS)} and float")
    return torch.from_numpy((array / _UNITS[array.dtype.name]).astype(np.float32))


def write_image(path: str | Path, x: Float[Tensor, "..."], *, bits: int = 8) -> None:
    """Write a gray or colour image: clipped to [0, 1], rounded, and complete or not at all.

    Args:
        path: ends in .png, .jpg, .jpeg, .tif or .tiff.
        x: (h, w) or (3, h, w), intensities in [0, 1].
        bits: 8, or 16 for PNG and TIFF.

    Raises:
        ValueError: another suffix, depth or shape, an integer tensor, NaN.
        OSError: the folder is missing or cannot be written.
    """
    path = Path(path)
    check_output(path, bits=bits)
    if x.ndim not in (2, 3) or x.numel() == 0 or (x.ndim == 3 and x.shape[0] != 3):
        raise ValueError(f"expected shape (h, w) or (3, h, w), got {tuple(x.shape)}")
    if not x.is_floating_point() or x.isnan().any():
        raise ValueError(f"expected a floating point image without NaN, got {x.dtype}")
    top = 2**bits - 1
    levels = (x.detach().cpu().double().clamp(0, 1) * top).round().numpy()
    levels = levels.astype(np.uint16 if bits == 16 else np.uint8)
    content = _encode(np.moveaxis(levels, 0, -1) if x.ndim == 3 else levels, path.suffix.lower())
    with complete(path) as part:
        part.write_bytes(content)


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its name at the end, or is removed."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_output(path: str | Path, *, bits: int = 8) -> None:
    """Refuse, before any work, a file that `write_image` could not write."""
    path = Path(path)
    if bits not in _DEPTHS.get(path.suffix.lower(), ()):
        allowed = ", ".join(f"{s} ({' or '.join(map(str, b))} bits)" for s, b in _DEPTHS.items())
        raise ValueError(f"{path}: cannot write {bits} bits as {path.suffix!r}: allowed: {allowed}")
    check_place(path)


def check_place(path: Path) -> None:
    """Refuse a file whose folder is missing or cannot be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(f"{path}: its folder does not exist or cannot be written")


# Readers: each returns the stored samples ------------------------------------------------------


def _channels_first(array: np.ndarray) -> np.ndarray:
    few = (1, 3, 4)
    if array.ndim == 3 and array.shape[-1] in few and array.shape[0] not in few:
        array = np.moveaxis(array, -1, 0)
    return array


def _read_mat(path: Path, name: str | None) -> np.ndarray:
    if h5py.is_hdf5(path):  # version 7.3; HDF5 lists the axes in reverse
        with h5py.File(path) as file:
            arrays = {k: v[()].T for k, v in file.items() if isinstance(v, h5py.Dataset)}
    else:
        arrays = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    images = [
        k for k, v in arrays.items() if v.dtype.kind in "bfiu" and min(v.shape, default=0) > 1
    ]
    cubes = [k for k in images if arrays[k].ndim == 3]
    images = sorted(cubes or images)  # with a cube, a matrix is a map of its classes or so
    if name is None and len(images) == 1:
        name = images[0]
    if name not in arrays:
        raise ValueError(
            f"choose with name= one of its variables {images}; denoise has --key for it"
        )
    return arrays[name]


def _read_tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if len(tiff.pages) == 1 and page.bitspersample <= 8 and page.samplesperpixel <= 4:
            return _read_pillow(path)  # knows palettes, orientation and compressions
        array, samples = tiff.series[0].asarray(), page.axes.find("S")
    if samples >= 0:  # colour: one page
        return _on_white(np.moveaxis(array, samples, 0))
    return array


def _read_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        codec, extents, offset, args = image.tile[0] if image.tile else (None,) * 4
        if image.format == "PNG" and args in ("RGB;16B", "RGBA;16B"):
            # Pillow keeps the high byte of a 16-bit colour sample. Read as if little-endian, the
            # byte it keeps is the low one.
            with Image.open(path) as again:
                again.tile = [(codec, extents, offset, args.replace("16B", "16L"))]
                low = np.asarray(ImageOps.exif_transpose(again)).astype(np.uint16)
            array = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16) * 256 + low
        else:
            image = ImageOps.exif_transpose(image)
            if image.mode == "I":  # 16-bit gray in 32
                array = np.asarray(image)
                if array.min() < 0 or array.max() > 65535:
                    raise ValueError("32-bit integer samples")
                array = array.astype(np.uint16)
            elif image.mode == "F" or image.mode.startswith("I;16"):
                array = np.asarray(image)
            else:  # 8 bits: binary, gray, palette, colour, CMYK, with or without alpha
                mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
                array = np.asarray(image.convert(mode + "A" * image.has_transparency_data))
    return array if array.ndim == 2 else _on_white(np.moveaxis(array, -1, 0))


def _on_white(samples: np.ndarray) -> np.ndarray:
    """Lay (2, h, w) gray + alpha or (4, h, w) colour + alpha on white; others have no alpha."""
    if len(samples) not in (2, 4):
        return samples
    top = 1.0 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
    alpha = samples[-1] / top
    laid = alpha * samples[:-1] + (1 - alpha) * top
    laid = laid if top == 1.0 else np.round(laid).astype(samples.dtype)
    return laid[0] if len(laid) == 1 else laid


# Writer -------------------------------------------------------------------------------------


def _encode(levels: np.ndarray, suffix: str) -> bytes:
    """The file's bytes for uint8 or uint16 samples (h, w) or (h, w, 3)."""
    if suffix == ".png" and levels.dtype == np.uint16:
        return _encode_png16(levels)
    buffer = io.BytesIO()
    if suffix in (".tif", ".tiff"):
        kind = "rgb" if levels.ndim == 3 else "minisblack"
        tifffile.imwrite(buffer, levels, photometric=kind)
    elif suffix == ".png":
        Image.fromarray(levels).save(buffer, "PNG")
    else:
        Image.fromarray(levels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _encode_png16(levels: np.ndarray) -> bytes:
    """A 16-bit PNG, gray or colour (Pillow has no 16-bit colour): rows as differences, deflated."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    h, w = levels.shape[:2]
    rows = np.ascontiguousarray(levels, ">u2").view(np.uint8).reshape(h, -1)
    up = rows.copy()
    up[1:] -= rows[:-1]  # filter type 2 of the PNG specification
    body = np.concatenate([np.full((h, 1), 2, np.uint8), up], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", w, h, 16, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )
