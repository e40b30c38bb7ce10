"""CU-Net: an image from two modalities, by the features that they share and those that they do not.

The model is convolutional sparse coding of the two inputs x, y and of the target z,

    x = sum_k dc_k * c_k + sum_k du_k * u_k,    y = sum_k hc_k * c_k + sum_k hv_k * v_k,
    z = sum_k gc_k * c_k + sum_k gu_k * u_k     (+ sum_k gv_k * v_k for fusion),

with common codes c and unique codes u, v. Each code comes from unfolded iterations, `CodeNet`.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, fold, relu, softplus

SHARPNESS = 100.0  # of softplus: a positive threshold above .05 is its parameter to 1e-4


class Codes(NamedTuple):
    """Unique codes of x and of y, and the common codes."""

    u: Float[Tensor, "*batch n h w"]
    v: Float[Tensor, "*batch n h w"]
    c: Float[Tensor, "*batch n h w"]


def shrink(v: Float[Tensor, "..."], threshold: Float[Tensor, ""]) -> Float[Tensor, "..."]:
    """sign(v) max(|v| - threshold, 0); a negative threshold, which training may find, expands.

    >>> shrink(torch.tensor([-2.0, 0.5, 2.0]), torch.tensor(1.0))
    tensor([-1., 0., 1.])
    """
    return v.sign() * relu(v.abs() - threshold)


class CodeNet(nn.Module):
    """Convolutional sparse coding, unfolded (the block called LCSC).

    The gradient step of convolutional ISTA for 1/2 ||x - sum_k d_k * t_k||^2 + lambda ||t||_1 with
    a learned pair of filter banks in each layer:

        p = E_0 * x,   t_0 = S(p; theta_0),   t_i = S(t_{i-1} - E_i * D_i * t_{i-1} + p; theta_i).

    Args:
        channels: of x.
        filters: n, code channels.
        size: of all filters, odd.
        layers: unfolded iterations, after the first estimate.
        positive: learn softplus(.) as thresholds; else plain numbers, as in the released code.
    """

    def __init__(
        self, channels: int, filters: int, size: int, layers: int, *, positive: bool = False
    ) -> None:
        super().__init__()
        self.encode = nn.ParameterList(xavier(filters, channels, size) for _ in range(layers + 1))
        self.decode = nn.ParameterList(xavier(channels, filters, size) for _ in range(layers))
        self.theta = nn.Parameter(torch.full((layers + 1,), 0.01))
        self.positive = positive

    def thresholds(self) -> Float[Tensor, " n"]:
        """theta_0 ... theta_K, n = K + 1 numbers."""
        return softplus(self.theta, beta=SHARPNESS) if self.positive else self.theta

    def forward(self, x: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b n h w"]:
        first, *rest = self.thresholds()
        p = same(x, self.encode[0])
        t = shrink(p, first)
        for E, D, theta in zip(self.encode[1:], self.decode, rest, strict=True):
            t = shrink(t - same(same(t, D), E) + p, theta)
        return t


class CUNet(nn.Module):
    """CU-Net for a target that resembles x, with y as a guide; or for the fusion of both.

    u and v are coded from x and y alone; what they explain is taken away, and c is coded from the
    rest of both; the target is put together from u and c, in a fusion from v too. All filters are
    free, none is shared. 207,375 parameters in the published size for gray images.

    Args:
        fusion: v enters the target.
        channels: of x, of y and of the target.
        filters, size, layers, positive: of each `CodeNet`.

    Raises:
        ValueError: an even size, numbers below 1.

    Reference: X. Deng, P. L. Dragotti, Deep convolutional neural network for multi-modal image
    restoration and fusion, IEEE TPAMI 43, 2021.

    >>> sum(p.numel() for p in CUNet().parameters())
    207375
    """

    def __init__(
        self,
        *,
        fusion: bool = False,
        channels: int = 1,
        filters: int = 64,
        size: int = 9,
        layers: int = 4,
        positive: bool = False,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or min(channels, filters, size, layers) < 1:
            raise ValueError(
                f"channels {channels}, filters {filters} and layers {layers} must be at least 1, "
                f"size {size} odd and at least 1"
            )
        shape = (filters, size, layers)
        self.code_u = CodeNet(channels, *shape, positive=positive)
        self.code_v = CodeNet(channels, *shape, positive=positive)
        self.code_c = CodeNet(2 * channels, *shape, positive=positive)
        names = ["x_u", "y_v", "z_u", "z_c"] + ["z_v"] * fusion
        self.filters = nn.ParameterDict({k: xavier(channels, filters, size) for k in names})
        with torch.no_grad():  # a large first result drives training to switch the codes c off
            for key in names[2:]:
                self.filters[key].mul_(0.1)

    def codes(
        self, x: Float[Tensor, "*batch channels h w"], y: Float[Tensor, "*batch channels h w"]
    ) -> Codes:
        """The codes of a pair.

        Args:
            x, y: of one shape (*batch, channels, h, w), in the units of training.
        """
        u, v = self.code_u(x), self.code_v(y)
        rest = [x - same(u, self.filters["x_u"]), y - same(v, self.filters["y_v"])]
        return Codes(u, v, self.code_c(torch.cat(rest, -3)))

    def part(self, codes: Codes, name: Literal["u", "v", "c"]) -> Float[Tensor, "*b channels h w"]:
        """What one code contributes to the target."""
        return same(getattr(codes, name), self.filters[f"z_{name}"])

    def join(self, codes: Codes) -> Float[Tensor, "*b channels h w"]:
        """The target that the codes stand for, the sum of its parts."""
        return sum(self.part(codes, name) for name in "uvc" if f"z_{name}" in self.filters)

    def forward(
        self, x: Float[Tensor, "*batch channels h w"], y: Float[Tensor, "*batch channels h w"]
    ) -> Float[Tensor, "*batch channels h w"]:
        return self.join(self.codes(x, y))


def same(x: Float[Tensor, "*b c h w"], filters: Float[Tensor, "n c s s"]) -> Tensor:
    """Correlation with a bank of odd size, zeros beyond the borders: the size of x is kept."""
    n, c, size, _ = filters.shape
    if n >= c or x.device.type != "cpu":
        return conv2d(x, filters, padding=size // 2)
    # To few channels from many: a product, and a sum of shifts, is 2.7 times as fast there.
    taps = filters.flip(-1, -2).permute(0, 2, 3, 1).reshape(-1, c)
    return fold(taps @ x.flatten(-2), x.shape[-2:], size, padding=size // 2)


def xavier(n: int, c: int, size: int) -> nn.Parameter:
    """A bank (n, c, size, size), Xavier uniform."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, c, size, size)))
