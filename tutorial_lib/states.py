"""The state of a fixed point, a tensor or a tuple of them, as a matrix (b, n); norms and checks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]
Map = Callable[[Any], Any]


class _Form:
    """Between a tensor, or a tuple of them, and one matrix (b, n)."""

    def __init__(self, z0: State) -> None:
        parts = (z0,) if isinstance(z0, Tensor) else z0
        if not isinstance(parts, tuple) or not parts:
            raise ValueError(f"z0 is a {type(z0).__name__}: a tensor or a tuple of tensors")
        for u in parts:
            if not isinstance(u, Tensor) or u.ndim < 1 or not u.is_floating_point():
                told = f"{u.dtype} {tuple(u.shape)}" if isinstance(u, Tensor) else type(u).__name__
                raise ValueError(f"z0 holds {told}: floating-point tensors (b, ...) are needed")
            if u.isnan().any():
                raise ValueError(f"z0 of shape {tuple(u.shape)} contains NaN")
        if len({(len(u), u.dtype, u.device) for u in parts}) > 1 or 0 in parts[0].shape:
            raise ValueError(
                "the tensors of z0 need one number of samples, at least one, one dtype and one "
                f"device, got {[(tuple(u.shape), u.dtype, u.device) for u in parts]}"
            )
        self.single = isinstance(z0, Tensor)
        self.shapes = [u.shape for u in parts]
        self.sizes = [u[0].numel() for u in parts]
        self.dtype = parts[0].dtype

    def pack(self, z: State) -> Tensor:
        if self.single:
            return z.reshape(len(z), -1)
        return torch.cat([u.reshape(len(u), -1) for u in z], 1)

    def unpack(self, z: Tensor) -> State:
        if self.single:
            return z.reshape(self.shapes[0])
        parts = z.split(self.sizes, 1)
        return tuple(u.reshape(shape) for u, shape in zip(parts, self.shapes, strict=True))

    def flat(self, f: Map) -> Callable[[Tensor], Tensor]:
        """f on matrices (b, n)."""

        def F(z: Tensor) -> Tensor:
            value = f(self.unpack(z))
            parts = (value,) if isinstance(value, Tensor) else value
            if isinstance(value, Tensor) is self.single and isinstance(parts, tuple):
                if [(u.shape, u.dtype) for u in parts] == [(s, self.dtype) for s in self.shapes]:
                    return self.pack(value)
            raise ValueError(
                f"f takes the state {self.told(self.shapes)} of {self.dtype} and gives "
                f"{self.told([u.shape for u in parts])} of {parts[0].dtype}: they must be equal"
            )

        return F

    def told(self, shapes: list[torch.Size]) -> str:
        return ", ".join(str(tuple(s)) for s in shapes)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1, dtype=_precise(x.dtype))


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1, eps=torch.finfo(x.dtype).tiny)


def _vjp(value: Tensor, z: Tensor, w: Tensor, create: bool = False) -> Tensor:
    """J^T w; zero where f does not look at z."""
    options = {"retain_graph": True, "create_graph": create, "materialize_grads": True}
    return torch.autograd.grad(value, z, w, **options)[0]


def _check_count(name: str, value: int, *, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} = {value}: a whole number of at least {least} is needed")


def _check_share(name: str, value: float | int) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} = {value}: a number above 0 and at most 1 is needed")


def _refuse_nan(z: Tensor, fz: Tensor, suspects: Tensor, count: int) -> None:
    """NaN out of finite numbers, or anything that is not finite at the start, is an error."""
    if not suspects.any():
        return
    wrong = fz.isnan() if count > 1 else ~fz.isfinite()
    wrong = suspects & wrong.any(1) & z.isfinite().all(1)
    if wrong.any():
        raise FloatingPointError(
            f"evaluation {count}: f makes NaN or infinity out of finite numbers for "
            f"{int(wrong.sum())} of {len(z)} samples, first for sample {int(wrong.int().argmax())}"
        )
