"""Normalising flows: bijections whose Jacobian determinant costs no more than the bijection.

Every bijection here is a module with `forward(x) -> (z, log_det)` and `inverse(z) -> x`. Vectors
are (b, c), images (b, c, h, w); log_det is log |det dz/dx| of each sample, (b,).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from tutorial_lib.wavelets import dwt, idwt

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Flow",
    "Glow",
    "Haar",
    "Invertible1x1",
    "Squeeze",
    "bits_per_dim",
    "initialise",
    "log_prob",
    "real_nvp",
]

Points = Float[Tensor, "b c *space"]
LogDet = Float[Tensor, " b"]


# Densities ---------------------------------------------------------------------------------------


def log_prob(flow: nn.Module, x: Points) -> LogDet:
    """The log-density that a flow gives each sample, with a standard normal z:

    log p(x) = -||z||^2 / 2 - d/2 log(2 pi) + log |det dz/dx|,  (z, log_det) = flow(x).

    Args:
        flow: a bijection of this file.
        x: samples.

    Returns:
        log p(x) in nats, (b,).

    Reference: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, ICLR 2017.

    >>> log_prob(Flow(), torch.zeros(1, 2))  # the standard normal itself: -log(2 pi)
    tensor([-1.8379])
    """
    z, log_det = flow(x)
    z = z.flatten(1)
    return -z.square().sum(1) / 2 - z.shape[1] / 2 * math.log(2 * math.pi) + log_det


def bits_per_dim(flow: nn.Module, levels: Integer[Tensor, "b c h w"], *, seed: int = 0) -> LogDet:
    """Bits per pixel and channel that a flow over [0, 1] needs for 8-bit images.

    With u ~ U[0, 1)^d, -(1/d) log2 p((levels + u) / 256) + 8: an upper bound, in expectation over
    u, on the code length of the integers.

    Args:
        flow: a bijection fitted to images in [0, 1].
        levels: integers 0 ... 255.
        seed: of the uniform dequantisation u.

    Returns:
        bits per dimension of each image, (b,).

    Raises:
        ValueError: levels outside 0 ... 255.

    Reference: L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models,
    ICLR 2016.
    """
    if levels.numel() and (levels.min() < 0 or levels.max() > 255):
        raise ValueError(
            f"levels must lie in 0 ... 255, got {int(levels.min())} ... {int(levels.max())}"
        )
    u = torch.rand(levels.shape, generator=torch.Generator().manual_seed(seed))
    x = (levels + u.to(levels.device)) / 256
    return 8 - log_prob(flow, x) / (math.log(2) * levels[0].numel())


# Bijections --------------------------------------------------------------------------------------


class AdditiveCoupling(nn.Module):
    """z_1 = x_1, z_2 = x_2 + net(x_1): a lifting step. log_det = 0.

    Args:
        net: any network from the first half of the channels to the shape of the second.
        swap: exchange the roles of the two halves.

    Raises:
        ValueError: when called, an odd number of channels.

    Reference: L. Dinh, D. Krueger, Y. Bengio, NICE: non-linear independent components estimation,
    ICLR workshop, 2015.

    >>> AdditiveCoupling(torch.square)(torch.tensor([[3.0, 1.0]]))[0]
    tensor([[ 3., 10.]])
    """

    def __init__(self, net, *, swap: bool = False) -> None:
        super().__init__()
        self.net, self.swap = net, swap

    def forward(self, x: Points) -> tuple[Points, LogDet]:
        a, b = _halves(x, self.swap)
        return _join(a, b + self.net(a), self.swap), x.new_zeros(len(x))

    def inverse(self, z: Points) -> Points:
        a, b = _halves(z, self.swap)
        return _join(a, b - self.net(a), self.swap)


class AffineCoupling(nn.Module):
    """z_1 = x_1, z_2 = exp(s) x_2 + t with (r, t) = net(x_1), s = bound tanh(r / bound).

    log_det = sum s. The bound keeps the scales within exp(-bound) ... exp(bound).

    Args:
        net: any network from the first half of the channels to twice the channels of the second.
        bound: largest |s|.
        swap: exchange the roles of the two halves.

    Raises:
        ValueError: a bound that is not positive; when called, an odd number of channels.

    Reference: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, ICLR 2017.
    """

    def __init__(self, net, *, bound: float = 2.0, swap: bool = False) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound must be positive, got {bound}")
        self.net, self.bound, self.swap = net, bound, swap

    def forward(self, x: Points) -> tuple[Points, LogDet]:
        a, b = _halves(x, self.swap)
        s, t = self._scale_and_shift(a)
        return _join(a, s.exp() * b + t, self.swap), s.flatten(1).sum(1)

    def inverse(self, z: Points) -> Points:
        a, b = _halves(z, self.swap)
        s, t = self._scale_and_shift(a)
        return _join(a, (b - t) * (-s).exp(), self.swap)

    def _scale_and_shift(self, a: Tensor) -> tuple[Tensor, Tensor]:
        r, t = self.net(a).chunk(2, 1)
        return self.bound * (r / self.bound).tanh(), t


class ActNorm(nn.Module):
    """z = exp(log_scale) (x - mean), one pair of numbers a channel. log_det = n sum log_scale.

    n is the number of pixels. `initialise` sets both from a batch, so that z has mean 0 and
    variance 1 on it; afterwards they are parameters like all others.

    Args:
        channels: c.

    Raises:
        ValueError: when called, another number of channels.

    Reference: D. P. Kingma, P. Dhariwal, Glow: generative flow with invertible 1x1 convolutions,
    NeurIPS 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def initialise(self, x: Points) -> None:
        """Set mean and scale from the batch x."""
        pixels = _channels(x, len(self.mean)).transpose(0, 1).flatten(1)  # (c, b n)
        self.mean.copy_(pixels.mean(1))
        self.log_scale.copy_(-pixels.std(1).clamp(min=1e-6).log())

    def forward(self, x: Points) -> tuple[Points, LogDet]:
        flat = _channels(x, len(self.mean))
        z = (flat - self.mean[:, None]) * self.log_scale.exp()[:, None]
        return z.view_as(x), (flat.shape[2] * self.log_scale.sum()).expand(len(x))

    def inverse(self, z: Points) -> Points:
        flat = _channels(z, len(self.mean))
        return (flat * (-self.log_scale).exp()[:, None] + self.mean[:, None]).view_as(z)


class Invertible1x1(nn.Module):
    """z = W x at each pixel, W = P L (U + diag(sign exp(log_s))). log_det = n sum log_s.

    P is a fixed permutation, L unit lower and U strictly upper triangular: the determinant is read
    off, and the inverse is two triangular solves. Starts at a random rotation.

    Args:
        channels: c.

    Raises:
        ValueError: when called, another number of channels.

    Reference: D. P. Kingma, P. Dhariwal, Glow: generative flow with invertible 1x1 convolutions,
    NeurIPS 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        P, L, U = torch.linalg.lu(rotation)
        s = U.diagonal()
        self.lower, self.upper = nn.Parameter(L.tril(-1)), nn.Parameter(U.triu(1))
        self.log_s = nn.Parameter(s.abs().log())
        self.register_buffer("P", P)
        self.register_buffer("sign", s.sign())

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U + diag(s)."""
        L = self.lower.tril(-1) + torch.eye(len(self.P), dtype=self.P.dtype, device=self.P.device)
        return L, self.upper.triu(1) + (self.sign * self.log_s.exp()).diag()

    def forward(self, x: Points) -> tuple[Points, LogDet]:
        flat, (L, U) = _channels(x, len(self.P)), self.factors()
        return (self.P @ L @ U @ flat).view_as(x), (flat.shape[2] * self.log_s.sum()).expand(len(x))

    def inverse(self, z: Points) -> Points:
        flat, (L, U) = _channels(z, len(self.P)), self.factors()
        solve = torch.linalg.solve_triangular
        y = solve(L, self.P.mT @ flat, upper=False, unitriangular=True)
        return solve(U, y, upper=True).view_as(z)


class Squeeze(nn.Module):
    """Each 2 x 2 block of pixels becomes four channels: (b, c, h, w) -> (b, 4c, h/2, w/2).

    The four pixels of a block lie c channels apart. log_det = 0.

    Raises:
        ValueError: when called, odd sizes; for the inverse, channels not divisible by four.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c4 h2 w2"], LogDet]:
        b, c, h, w = _even(x).shape
        blocks = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(b, 4 * c, h // 2, w // 2), x.new_zeros(b)

    def inverse(self, z: Float[Tensor, "b c4 h2 w2"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = _fourfold(z).shape
        blocks = z.reshape(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(b, c // 4, 2 * h, 2 * w)


class Haar(nn.Module):
    """As `Squeeze`, but the four channels are the orthonormal Haar bands aa, ad, da, dd.

    The map is a rotation, so log_det = 0, and bits per dimension keep their meaning.

    Raises:
        ValueError: when called, odd sizes; for the inverse, channels not divisible by four.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c4 h2 w2"], LogDet]:
        bands = dwt(_even(x), "haar", mode="periodization", ndim=2)  # (b, c, 4, h/2, w/2)
        return bands.transpose(1, 2).flatten(1, 2), x.new_zeros(len(x))

    def inverse(self, z: Float[Tensor, "b c4 h2 w2"]) -> Float[Tensor, "b c h w"]:
        bands = _fourfold(z).unflatten(1, (4, -1)).transpose(1, 2)
        return idwt(bands, "haar", mode="periodization", ndim=2)


# Chains ------------------------------------------------------------------------------------------


class Flow(nn.Sequential):
    """Bijections one after the other: log-determinants add, the inverse runs backwards."""

    def forward(self, x: Points) -> tuple[Tensor, LogDet]:
        log_det = x.new_zeros(len(x))
        for layer in self:
            x, added = layer(x)
            log_det = log_det + added
        return x, log_det

    def inverse(self, z: Points) -> Tensor:
        for layer in reversed(self):
            z = layer.inverse(z)
        return z


def real_nvp(channels: int = 2, *, layers: int = 8, width: int = 64, bound: float = 2.0) -> Flow:
    """RealNVP for vectors: affine couplings of alternating halves, an ActNorm before each.

    Args:
        channels: even dimension of the vectors.
        layers: number of couplings.
        width: of the two hidden layers in each coupling.
        bound: largest log-scale of a coupling.

    >>> z, log_det = real_nvp()(torch.randn(5, 2))
    >>> z.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """
    _check_even(channels)
    stack = []
    for k in range(layers):
        net = _dense(channels // 2, channels, width)
        stack += [ActNorm(channels), AffineCoupling(net, bound=bound, swap=k % 2 == 1)]
    return Flow(*stack)


class Glow(nn.Module):
    """A small Glow: per level a split, `steps` of (ActNorm, 1x1 convolution, affine coupling).

    After each level but the last, one more coupling normalises half of the channels given the
    other half, and they leave as part of z; the rest goes on at half the size.

    Args:
        shape: (c, h, w) of the images; h and w divisible by 2**levels.
        levels, steps: number of scales, and of steps at each.
        width: hidden channels of the couplings.
        split: "squeeze" regroups pixels, "haar" takes orthonormal wavelet bands.

    Raises:
        ValueError: an unknown split, sizes that cannot be halved `levels` times, or images of
            another shape.

    Reference: D. P. Kingma, P. Dhariwal, Glow: generative flow with invertible 1x1 convolutions,
    NeurIPS 2018.

    >>> glow = Glow((1, 8, 8), levels=2, steps=1, width=4)
    >>> z, log_det = glow(torch.rand(3, 1, 8, 8))
    >>> z.shape, glow.inverse(z).shape
    (torch.Size([3, 64]), torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        levels: int = 3,
        steps: int = 4,
        width: int = 64,
        split: Literal["squeeze", "haar"] = "haar",
    ) -> None:
        super().__init__()
        if split not in ("squeeze", "haar"):
            raise ValueError(f"unknown split {split!r}: allowed are 'squeeze' and 'haar'")
        c, h, w = shape
        if h % 2**levels or w % 2**levels:
            raise ValueError(f"{h} x {w} pixels cannot be halved {levels} times")
        self.shape, self.parts = (c, h, w), []
        self.levels, self.exits = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            c, h, w = 4 * c, h // 2, w // 2
            stack = [Haar() if split == "haar" else Squeeze()]
            for _ in range(steps):
                stack += [ActNorm(c), Invertible1x1(c), AffineCoupling(_conv(c // 2, c, width))]
            self.levels.append(Flow(*stack))
            if level < levels - 1:
                self.exits.append(Flow(ActNorm(c), AffineCoupling(_conv(c // 2, c, width))))
                c //= 2
            self.parts.append((c, h, w))

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d"], LogDet]:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"images must have shape {('b', *self.shape)}, got {tuple(x.shape)}")
        z, log_det = [], x.new_zeros(len(x))
        for i, level in enumerate(self.levels):
            x, added = level(x)
            log_det = log_det + added
            if i < len(self.exits):
                x, added = self.exits[i](x)
                log_det = log_det + added
                x, out = x.chunk(2, 1)
                z.append(out.flatten(1))
        return torch.cat([*z, x.flatten(1)], 1), log_det

    def inverse(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        if z.shape[1] != math.prod(self.shape):
            raise ValueError(f"z must have {math.prod(self.shape)} numbers, got {z.shape[1]}")
        sizes = [math.prod(part) for part in self.parts]
        *outs, x = (p.unflatten(1, s) for p, s in zip(z.split(sizes, 1), self.parts, strict=True))
        for i in reversed(range(len(self.levels))):
            if i < len(self.exits):
                x = self.exits[i].inverse(torch.cat([x, outs[i]], 1))
            x = self.levels[i].inverse(x)
        return x


def initialise(flow: nn.Module, x: Points) -> nn.Module:
    """Set every ActNorm of a flow from one batch, in the order in which the batch meets them.

    Args:
        flow: a bijection of this file; changed in place.
        x: a batch of data.

    Returns:
        the flow.
    """
    hooks = [
        m.register_forward_pre_hook(lambda layer, args: layer.initialise(args[0]))
        for m in flow.modules()
        if isinstance(m, ActNorm)
    ]
    try:
        with torch.no_grad():
            flow(x)
    finally:
        for hook in hooks:
            hook.remove()
    return flow


# Parts -------------------------------------------------------------------------------------------


def _dense(c_in: int, c_out: int, width: int) -> nn.Sequential:
    """Two hidden layers; the last starts at zero, so that the coupling starts at the identity.

    The first starts steep, its bends spread over the data: gaps between modes need sharp functions,
    which take several times longer to learn from the usual flat start.
    """
    net = nn.Sequential(
        nn.Linear(c_in, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, c_out),
    )
    with torch.no_grad():
        net[0].weight.mul_(4)
        net[0].bias.uniform_(-8, 8)
    return _zero_last(net)


def _conv(c_in: int, c_out: int, width: int) -> nn.Sequential:
    """3 x 3, 1 x 1, 3 x 3 convolutions; the last starts at zero."""
    net = nn.Sequential(
        nn.Conv2d(c_in, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, c_out, 3, padding=1),
    )
    return _zero_last(net)


def _zero_last(net: nn.Sequential) -> nn.Sequential:
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return net


def _halves(x: Tensor, swap: bool) -> tuple[Tensor, Tensor]:
    """The half that stays and the half that is changed."""
    _check_even(x.shape[1])
    a, b = x.chunk(2, 1)
    return (b, a) if swap else (a, b)


def _join(a: Tensor, b: Tensor, swap: bool) -> Tensor:
    return torch.cat([b, a] if swap else [a, b], 1)


def _channels(x: Tensor, channels: int) -> Tensor:
    """(b, c, *space) -> (b, c, n)."""
    if x.shape[1] != channels:
        raise ValueError(f"made for {channels} channels, got x of shape {tuple(x.shape)}")
    return x.reshape(len(x), channels, math.prod(x.shape[2:]))


def _even(x: Tensor) -> Tensor:
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"height and width must be even, got x of shape {tuple(x.shape)}")
    return x


def _fourfold(z: Tensor) -> Tensor:
    if z.shape[1] % 4:
        raise ValueError(f"the number of channels must be a multiple of 4, got {z.shape[1]}")
    return z


def _check_even(channels: int) -> None:
    if channels % 2:
        raise ValueError(f"a coupling needs an even number of channels, got {channels}")
