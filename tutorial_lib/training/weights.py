"""Trained weights: saved with a record of their training, loaded only if nothing has changed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import tutorial_lib

Network = TypeVar("Network", bound=nn.Module)
WEIGHTS = Path(tutorial_lib.__file__).parent / "weights"
MANIFEST = "manifest.json"


def shipped(*, folder: str | Path | None = None) -> list[str]:
    """The names that `load_weights` knows, sorted; None: those that come with the package.

    >>> shipped(folder="nowhere")
    []
    """
    keys = _manifest(Path(folder or WEIGHTS))
    return sorted(Path(key).stem for key in keys if key.endswith(".safetensors"))


def save_weights(
    name: str,
    network: nn.Module,
    record: dict[str, Any],
    *,
    half: bool = False,
    folder: str | Path | None = None,
) -> Path:
    """Write NAME.safetensors, its record NAME.json, and their sha256 into manifest.json.

    Args:
        name: letters, digits and underscores.
        network: its parameters and buffers are kept, tied ones once.
        record: what is to be told about the training (`Run.record`); JSON.
        half: keep floating point numbers in 16 bits, half the size (relative error up to 5e-4).
        folder: created where it is missing; None: the one of the package.

    Returns:
        The path of the weights.

    Raises:
        ValueError: another name, or weights that are not finite in the precision kept.
    """
    if not name.isidentifier():
        raise ValueError(f"name {name!r}: expected letters, digits and underscores")
    folder = Path(folder or WEIGHTS)
    state = {k: v.detach().cpu().contiguous() for k, v in tensors(network).items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    for key, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} of {name} is not finite as {value.dtype}")
    content = {
        f"{name}.safetensors": safetensors.torch.save(state),
        f"{name}.json": (json.dumps(record, indent=1) + "\n").encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in content.items():
        write_atomically(folder / key, value)
    digests = _manifest(folder) | {k: hashlib.sha256(v).hexdigest() for k, v in content.items()}
    lines = json.dumps(dict(sorted(digests.items())), indent=1) + "\n"
    write_atomically(folder / MANIFEST, lines.encode())
    return folder / f"{name}.safetensors"


def load_weights(
    name: str, *, folder: str | Path | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record that `save_weights` wrote; half precision becomes float32.

    Raises:
        FileNotFoundError: there are no weights of that name.
        ValueError: a file is not the one in the manifest (damaged, truncated, another one).
    """
    folder = Path(folder or WEIGHTS)
    manifest = _manifest(folder)
    content = []
    for key in (f"{name}.safetensors", f"{name}.json"):
        if key not in manifest or not (folder / key).is_file():
            known = ", ".join(shipped(folder=folder)) or "none"
            raise FileNotFoundError(f"no weights {name!r} in {folder}: there are {known}")
        content.append((folder / key).read_bytes())
        came = hashlib.sha256(content[-1]).hexdigest()
        if came != manifest[key]:
            raise ValueError(
                f"{folder / key} is damaged or another file: expected sha256 {manifest[key]}, "
                f"got {came} ({len(content[-1])} bytes)"
            )
    try:
        state = safetensors.torch.load(content[0])
    except SafetensorError as error:
        raise ValueError(f"{folder / name}.safetensors is no safetensors file: {error}") from error
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}
    return state, json.loads(content[1])


def load_network(name: str, network: Network) -> Network:
    """A network with the weights that come with the package, in evaluation mode."""
    fill(network, load_weights(name)[0], source=f"the weights {name!r}")
    return network.eval()


def fill(network: nn.Module, state: dict[str, Tensor], *, source: str = "the weights") -> None:
    """Copy tensors into a network, each to the parameter or buffer of its name.

    Raises:
        ValueError: names or shapes that differ.
    """
    own = {k: tuple(v.shape) for k, v in tensors(network).items()}
    came = {k: tuple(v.shape) for k, v in state.items()}
    for key in sorted(own.keys() | came.keys()):
        if own.get(key) != came.get(key):
            raise ValueError(
                f"{source} do not fit the network: {key} is {came.get(key, 'missing')} there, "
                f"{own.get(key, 'missing')} in the network"
            )
    with torch.no_grad():
        for key, value in tensors(network).items():
            value.copy_(state[key])


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once."""
    first = {id(v): (k, v) for k, v in reversed(network.state_dict(keep_vars=True).items())}
    return dict(sorted(first.values()))


def write_atomically(path: Path, content: bytes, *, keep: Path | None = None) -> None:
    """The whole content under that name, also after a crash, or the file as it was before.

    `keep` is where the file that is replaced goes.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            path.replace(keep)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    return json.loads(path.read_text()) if path.is_file() else {}
