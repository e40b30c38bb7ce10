"""The soft threshold as the networks use it: unchecked, with a backward that costs little."""

import torch
from jaxtyping import Float
from torch import Tensor


def shrink(v: Float[Tensor, "..."], threshold: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`thresholding.soft` without its checks, which would wait for the device in every layer.

    Args:
        v: any shape.
        threshold: nonnegative, broadcasts against v.

    >>> shrink(torch.tensor([[3.0, -2.0]]), torch.tensor([1.0, 3.0]))
    tensor([[2., 0.]])
    """
    return _Shrink.apply(v, threshold)


class _Shrink(torch.autograd.Function):
    """S_t(v), whose derivatives are [S_t(v) != 0] in v and -sign(S_t(v)) in t."""

    @staticmethod
    def forward(ctx, v: Tensor, threshold: Tensor) -> Tensor:
        y = torch.clamp(v, -threshold, threshold)
        torch.sub(v, y, out=y)
        ctx.save_for_backward(y)
        ctx.shape = threshold.shape
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        (y,) = ctx.saved_tensors
        sign = y.sign()
        return grad * sign.abs(), -(grad * sign).sum_to_size(ctx.shape)
