"""Separation of a mixed X-ray: coupled ISTA with exclusion, unfolded, for one painting alone.

The model (chapter 15) for the X-ray x, latent images y_j and codes z_j of the surface (j = 1) and
of the concealed design (j = 2), and what is seen of the surface, r:

    ||x - Psi*y_1 - Psi*y_2||^2 + gamma ||r - Phi*y_1||^2 + sum_j tau_j ||y_j - Theta*z_j||^2
        + sum_j lambda_j ||z_j||_1 + sum_i mu ||(W_i*y_1) . (W_i*y_2)||_1.

A layer of the network takes one proximal gradient step in each of its variables, with filters of
its own; one filter C makes the two X-rays, x_j = C*y_j.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, pad, softplus

from tutorial_lib.exclusion import haar_details, haar_details_adjoint

from .shrinkage import shrink

HEADS = ("response", "linear", "nonlinear")
SHARPNESS = 20.0  # of softplus, as published: 0.1 stands for 0.106


class Parts(NamedTuple):
    """The two X-rays, and the surface as the head sees it.

    `seen` is R(r) for the head "response", the X-ray that the visible picture foretells; for the
    others R(x_1), the colours that the surface's X-ray foretells.
    """

    surface: Float[Tensor, "b 1 h w"]
    hidden: Float[Tensor, "b 1 h w"]
    seen: Float[Tensor, "b n h w"]


def clip(v: Float[Tensor, "..."], bound: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """v limited to [-bound, bound] entry by entry."""
    return torch.maximum(torch.minimum(v, bound), -bound)


def exclude(
    y: Float[Tensor, "*b h w"], other: Float[Tensor, "*b h w"], mu: Float[Tensor, ""]
) -> Float[Tensor, "*b h w"]:
    """Lower the edges of y where `other` has edges: y - W^T clip(W y, mu |W other|).

    W are the three high-pass bands of the undecimated Haar frame: the mean of y is kept, and so is
    y wherever `other` is flat. For an orthonormal W it would be the exact proximal map of
    mu ||(W other) . (W y)||_1; in a redundant frame it is near (chapter 15), and cheap.

    >>> y = torch.rand(4, 4)
    >>> torch.equal(exclude(y, torch.ones(4, 4), torch.tensor(0.5)), y)
    True
    """
    w = haar_details(y)
    return y - haar_details_adjoint(clip(w, mu * haar_details(other).abs()))


class Response(nn.Module):
    """How the X-ray answers to paint, R(r) = sum_s Phi_s * b_s(r): learned bands, linear filters.

    The bands b_s are functions of the three colours of one pixel, made by two hidden layers: no
    band can know where in the picture it is. 1/2 is taken from the colours before.

    Args:
        hidden: width of the two hidden layers.
        bands: S.
        size: of the filters Phi_s, odd; 1: a function of the colours at the same pixel.
    """

    def __init__(self, *, hidden: int = 48, bands: int = 16, size: int = 3) -> None:
        super().__init__()
        widths = (3, hidden, hidden, bands)
        self.lift = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.filters = nn.Parameter(torch.zeros(1, bands, size, size))
        with torch.no_grad():
            self.lift[0].weight.mul_(4.0)  # colours use a small part of [-1/2, 1/2]
            self.filters[:, :, size // 2, size // 2].normal_(std=bands**-0.5)

    def bands(self, r: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b s h w"]:
        """b_s(r): the visible picture, lifted."""
        first, second, last = self.lift
        return last(gelu(second(gelu(first(r - 0.5)))))

    def forward(self, r: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        return same(self.bands(r), self.filters)


class Layer(nn.Module):
    """One step in z_1, z_2, y_2 and y_1, in this order, with the newest values:

        z_j <- S(z_j + E*(y_j - D*z_j); theta_j)
        y_2 <- exclude(y_2 + P*(x - Q*(y_1 + y_2)) - t_2 (y_2 - D*z_2), y_1)
        y_1 <- exclude(y_1 + P*(x - Q*(y_1 + y_2)) + F*(r - G*y_1) - t_1 (y_1 - D*z_1), y_2).

    Args:
        maps: K, channels of a code.
        bands: channels of r.
        size: of all filters, odd.
    """

    def __init__(self, maps: int, bands: int, size: int) -> None:
        super().__init__()
        atoms = torch.randn(1, maps, size, size)
        atoms = atoms - atoms.mean((-2, -1), keepdim=True)
        atoms = atoms / (4 * atoms.square().sum((-2, -1), keepdim=True).sqrt())
        self.D, self.E = nn.Parameter(atoms), nn.Parameter(atoms.transpose(0, 1).flip(-2, -1))
        self.P, self.Q = delta(1, 1, size, 0.25), delta(1, 1, size)
        self.F, self.G = delta(1, bands, size, 0.5 / bands), delta(bands, 1, size)
        self.theta = nn.Parameter(torch.full((2, maps, 1, 1), 0.02))
        self.t, self.mu = nn.Parameter(torch.full((2,), 0.1)), nn.Parameter(torch.tensor(0.05))

    def forward(self, x, r, y_1, y_2, z_1, z_2):
        theta, mu = softplus(self.theta, SHARPNESS), softplus(self.mu, SHARPNESS)
        t_1, t_2 = softplus(self.t, SHARPNESS)
        z_1 = shrink(z_1 + same(y_1 - same(z_1, self.D), self.E), theta[0])
        z_2 = shrink(z_2 + same(y_2 - same(z_2, self.D), self.E), theta[1])
        missed = same(x - same(y_1 + y_2, self.Q), self.P)
        y_2 = exclude(y_2 + missed - t_2 * (y_2 - same(z_2, self.D)), y_1, mu)
        missed = same(x - same(y_1 + y_2, self.Q), self.P)
        seen = same(r - same(y_1, self.G), self.F)
        y_1 = exclude(y_1 + missed + seen - t_1 * (y_1 - same(z_1, self.D)), y_2, mu)
        return y_1, y_2, z_1, z_2


class XRayNet(nn.Module):
    """Two X-rays from a mixed one and the visible picture.

    Args:
        head: "linear" and "nonlinear" tie the surface to the picture as published, by making the
            colours of its X-ray, r ~ R(x_1): one bank of filters, or four of 64 channels with
            ReLU between them (208,192 parameters for a gray picture). "response" turns the head
            around, x_1 ~ R(r), and begins with it; R is `Response`, of 3,472 parameters, and no
            gradient of the two X-rays reaches it.
        layers: unfolded steps; 0 leaves y_1 as it begins.
        maps, size: channels of the codes, and width of the filters, 5 as published.
        spread: width of the filters of `Response`.

    Raises:
        ValueError: another head, numbers out of range.

    Reference: W. Pu, J.-J. Huang, B. Sober, N. Daly, C. Higgitt, I. Daubechies, P. L. Dragotti,
    M. R. D. Rodrigues, Mixed X-ray image separation for artworks with concealed designs, IEEE
    Trans. Image Processing 31, 2022.

    >>> sum(p.numel() for p in XRayNet(layers=0).head.parameters())
    3472
    """

    def __init__(
        self,
        *,
        head: str = "response",
        layers: int = 2,
        maps: int = 16,
        size: int = 5,
        spread: int = 3,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"unknown head {head!r}: allowed are {', '.join(HEADS)}")
        if min(layers, maps - 1) < 0 or size % 2 == 0 or spread % 2 == 0 or min(size, spread) < 1:
            raise ValueError(
                f"layers {layers} must be at least 0, maps {maps} at least 1, size {size} and "
                f"spread {spread} odd"
            )
        self.turned, self.maps = head == "response", maps
        if head == "response":
            self.head = Response(size=spread)
        elif head == "linear":
            self.head = Filters(1, 3, size=size)
        else:
            self.head = Filters(1, 64, 64, 64, 3, size=size)
        self.layers = nn.ModuleList(
            Layer(maps, 1 if self.turned else 3, size) for _ in range(layers)
        )
        self.C = delta(1, 1, size)

    def forward(
        self,
        visible: Float[Tensor, "b 3 h w"],
        xray: Float[Tensor, "b 1 h w"],
        guess: Float[Tensor, "b 1 h w"],
    ) -> Parts:
        """Separate.

        Args:
            visible: colours in [0, 1].
            xray: without its mean over the painting.
            guess: what y_1 begins with; the head "response" has its own and does not look at it.
        """
        foretold = self.head(visible) if self.turned else None
        y_1 = foretold.detach() if self.turned else guess  # R is fitted to edges, by itself
        r = y_1 if self.turned else visible - 0.5
        y_2, z_1 = xray - y_1, xray.new_zeros(len(xray), self.maps, *xray.shape[-2:])
        state = y_1, y_2, z_1, z_1
        for layer in self.layers:
            state = layer(xray, r, *state)
        surface, hidden = (same(y, self.C) for y in state[:2])
        return Parts(surface, hidden, foretold if self.turned else self.head(surface) + 0.5)


class Filters(nn.Sequential):
    """Convolutions of one odd size with ReLU between them; channels as listed."""

    def __init__(self, *channels: int, size: int) -> None:
        parts, border = [], {"padding": "same", "padding_mode": "reflect"}
        for a, b in zip(channels[:-1], channels[1:], strict=True):
            last_of_many = len(parts) == 2 * (len(channels) - 2) > 0  # published without a bias
            parts += [nn.Conv2d(a, b, size, bias=not last_of_many, **border), nn.ReLU()]
        super().__init__(*parts[:-1])


def same(x: Float[Tensor, "*b c h w"], filters: Float[Tensor, "n c s s"]) -> Tensor:
    """Correlation with a bank of odd size, the picture mirrored at its borders: its size stays."""
    reach = filters.shape[-1] // 2
    return conv2d(pad(x, (reach,) * 4, mode="reflect") if reach else x, filters)


def delta(n: int, c: int, size: int, gain: float = 1.0) -> nn.Parameter:
    """A bank (n, c, size, size) whose filters keep every channel as it is, times `gain`."""
    bank = torch.zeros(n, c, size, size)
    bank[:, :, size // 2, size // 2] = gain
    return nn.Parameter(bank)
