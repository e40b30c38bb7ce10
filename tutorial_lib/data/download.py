"""Where the public image sets live: found on disk, or downloaded once, and always verified."""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pooch
from tqdm import tqdm


class DataSet(NamedTuple):
    """One public set: a line here, and one line per file in registry.txt."""

    folder: str  # below data_dir(), and the beginning of the keys in registry.txt
    home: str  # URL that takes the place of `folder` for a download
    other_folders: tuple[str, ...]  # where else its files may lie, as official archives unpack
    reference: str


# Each home is pinned to a commit. The hashes in registry.txt were computed from original copies of
# the sets; 45 test images of BSDS500 were compared with hashes that others have published for this
# very commit, and agree. BSD68 and Set5 could not be compared with what their homes serve: other
# bytes would be refused. Levin09.mat has no hash: levin_kernels checks the kernels themselves.
SETS = {
    "BSDS500": DataSet(
        "BSDS500/images",
        "https://raw.githubusercontent.com/BIDS/BSDS500/"
        "a04b7c6c3a9f0ace74bf205c72a43d32e1c72722/BSDS500/data/images",
        ("BSR/BSDS500/data/images", "BSDS500/data/images"),
        "Arbelaez, Maire, Fowlkes, Malik, IEEE TPAMI 2011",
    ),
    "BSD68": DataSet(
        "BSD68",
        "https://raw.githubusercontent.com/cszn/DnCNN/"
        "55fdeb2ac82c8c8cae6e281dae2b8e87e2d47a4d/testsets/BSD68",
        ("testsets/BSD68",),
        "Roth and Black, CVPR 2005",
    ),
    "Set5": DataSet(
        "Set5",
        "https://raw.githubusercontent.com/tegg89/SRCNN-Tensorflow/"
        "b2eacb27ff32ff4f3530d07150621d73b44c4338/Test/Set5",
        ("Test/Set5",),
        "Bevilacqua, Roumy, Guillemot, Alberi-Morel, BMVC 2012",
    ),
    "Levin": DataSet(
        "levin09",
        "https://raw.githubusercontent.com/cszn/KAIR/"
        "1109364ed6a4c411bc215274ee40c27b7f7b18f3/kernels",
        ("kernels",),
        "Levin, Weiss, Durand, Freeman, CVPR 2009",
    ),
}
# The same content in another format, as good as the registered file.
ALSO = {"levin09/Levin09.mat": ("levin09/kernels.npz",)}
RETRIES = 2


def data_dir() -> Path:
    """Where sets are looked for and downloaded to: TUTORIAL_DATA_DIR, or the user's cache."""
    return Path(os.environ.get("TUTORIAL_DATA_DIR") or pooch.os_cache("tutorial_lib")).expanduser()


@lru_cache
def registry() -> dict[str, str]:
    """{"BSD68/test001.png": its sha256, ...}; "-" where the loader checks the content instead."""
    lines = resources.files(__package__).joinpath("registry.txt").read_text().splitlines()
    return dict(line.split() for line in lines if line and not line.startswith("#"))


def files_of(name: str, *, within: str = "") -> list[str]:
    """The registered keys of a set, sorted; `within` keeps those of one folder of it."""
    prefix = f"{SETS[name].folder}/{within}"
    return sorted(key for key in registry() if key.startswith(prefix))


def locate(set_name: str, key: str) -> Path | None:
    """The file `key` of a set if it is on disk, in its own layout or in the official archive's."""
    folder, _, others, _ = SETS[set_name]
    for name in (key, *ALSO.get(key, ())):
        for place in (folder, *others):
            path = data_dir() / (place + name.removeprefix(folder))
            if path.is_file():
                return path
    return None


def available(name: str) -> bool:
    """Whether every file of a set of `SETS` is on disk, so that loading it downloads nothing.

    Raises:
        ValueError: another name.

    >>> available("BSD69")
    Traceback (most recent call last):
    ValueError: unknown data set 'BSD69': known are BSDS500, BSD68, Set5, Levin
    """
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}: known are {', '.join(SETS)}")
    return all(locate(name, key) for key in files_of(name))


def fetch(name: str, keys: Sequence[str]) -> list[bytes]:
    """The verified content of files of a set, in the order of `keys`; absent ones are downloaded.

    Raises:
        ValueError: a file, on disk or downloaded, is not the registered one.
        ConnectionError: a file is absent and could not be downloaded.
    """
    missing = [key for key in keys if locate(name, key) is None]
    for key in tqdm(missing, desc=f"downloading {name}", unit="file", disable=not missing):
        _download(name, key)
    return [_verified(locate(name, key), registry()[key]) for key in keys]


def _download(name: str, key: str) -> None:
    """Download one file below `data_dir()`: complete and verified under its name, or not at all."""
    folder, home, _, reference = SETS[name]
    url, sha256 = home + key.removeprefix(folder), registry()[key]
    store = pooch.create(
        data_dir(),
        base_url="",
        registry={key: None if sha256 == "-" else sha256},
        urls={key: url},
        retry_if_failed=RETRIES,
    )
    pooch.get_logger().setLevel(logging.ERROR)  # the progress bar says enough
    try:
        store.fetch(key)
    except ValueError as error:
        raise ValueError(f"{url} is not the registered {key}: {error}") from error
    except OSError as error:  # connection, server, or disk
        raise ConnectionError(
            f"could not download {key} of {name} ({reference}) from {url}: {error}. "
            f"Put the set's files into {data_dir() / folder}, or set TUTORIAL_DATA_DIR to the "
            "folder that holds them."
        ) from error


def _verified(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    came = hashlib.sha256(content).hexdigest()
    if sha256 not in ("-", came):
        raise ValueError(
            f"{path} is not the original file: expected sha256 {sha256}, "
            f"got {came} ({len(content)} bytes). Delete it to download it again."
        )
    return content
