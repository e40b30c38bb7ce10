"""LINN, the lifting-inspired invertible network: its predict and update steps are learned.

Whatever the weights, `LINN.inverse` undoes `LINN.forward` (chapter 04_lifting says why); chapter
06_linn learns them, chapter 07_winnet builds its denoiser around them.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tutorial_lib.lifting import lift, unlift
from tutorial_lib.wavelets import dwt, idwt

from .shrinkage import shrink

Shrinkage = Literal["soft", "lista"]
UNIT = 50 / 255  # the noise level at which a threshold is softplus(theta) itself


class LINN(nn.Module):
    """M additive lifting steps on one coarse channel and its detail channels.

    Step m computes detail <- detail - P_m(coarse; sigma), coarse <- coarse + U_m(detail; sigma).
    The last convolution of each P_m and U_m starts at zero: a new LINN is the identity.

    Args:
        details: number of detail channels.
        steps: number M of lifting steps.
        features: channels inside P and U.
        blocks: residual blocks inside P and U.
        dilation: spacing of the taps of their convolutions, in pixels.

    Reference: J.-J. Huang and P. L. Dragotti, LINN: lifting inspired invertible neural network for
    image denoising, EUSIPCO 2021.
    """

    def __init__(
        self,
        details: int,
        *,
        steps: int = 4,
        features: int = 32,
        blocks: int = 4,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        size = {"features": features, "blocks": blocks, "dilation": dilation}
        self.predict = nn.ModuleList(LiftingNet(1, details, **size) for _ in range(steps))
        self.update = nn.ModuleList(LiftingNet(details, 1, **size) for _ in range(steps))

    def forward(
        self, coarse: Float[Tensor, "b 1 h w"], detail: Float[Tensor, "b d h w"], sigma: Tensor
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b d h w"]]:
        """The learned coarse and detail channels.

        Args:
            coarse, detail: channels of a split of images in [0, 1].
            sigma: noise level in the unit of the images, one number or (b, 1, 1, 1).
        """
        return lift(coarse, detail, self._steps(sigma))

    def inverse(
        self, coarse: Float[Tensor, "b 1 h w"], detail: Float[Tensor, "b d h w"], sigma: Tensor
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b d h w"]]:
        """Undo `forward`, exactly up to rounding, for the same sigma."""
        return unlift(coarse, detail, self._steps(sigma))

    def _steps(self, sigma: Tensor) -> list[tuple[partial, partial]]:
        pairs = zip(self.predict, self.update, strict=True)
        return [(partial(P, sigma=sigma), partial(U, sigma=sigma)) for P, U in pairs]

    def spectral_penalty(self) -> Float[Tensor, ""]:
        """The sum over layers of the largest singular value of each kernel, averaged over P and U.

        A kernel counts as the matrix (out, in * taps) that acts on one patch; a residual block is
        the one linear kernel that it would be without thresholds, its skip included; the output
        convolution is left out. It bounds no operator norm: it only keeps the inverse tame.
        """
        nets = [*self.predict, *self.update]
        return torch.stack([net.spectral_norms().sum() for net in nets]).mean()


class LiftingNet(nn.Module):
    """The body of P and U: a small convolutional network without bias, thresholds as activations.

    conv 3x3, S; then per residual block: x <- S(x + B(S(B(x)))) with B a depthwise 5x5 and a 1x1
    convolution; conv 3x3, zero at the start. S is the soft threshold with one threshold per
    channel and place, softplus(theta) sigma / (50/255): linear in sigma, so that at sigma = 0 the
    whole network is linear.

    Args:
        inputs, outputs: channels in and out.
        features: channels inside.
        blocks: number of residual blocks.
        dilation: spacing of the taps, in pixels.
    """

    def __init__(
        self, inputs: int, outputs: int, *, features: int = 32, blocks: int = 4, dilation: int = 1
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.first = nn.Parameter(torch.empty(features, inputs, 3, 3))
        self.depthwise = nn.Parameter(torch.empty(blocks, 2, features, 1, 5, 5))
        self.pointwise = nn.Parameter(torch.empty(blocks, 2, features, features, 1, 1))
        self.last = nn.Parameter(torch.zeros(outputs, features, 3, 3))
        self.theta = nn.Parameter(torch.empty(1 + 2 * blocks, features).uniform_(-0.1, 0))
        for kernel in (self.first, *self.depthwise.flatten(0, 1), *self.pointwise.flatten(0, 1)):
            nn.init.kaiming_uniform_(kernel, mode="fan_out")

    def forward(self, x: Float[Tensor, "b i h w"], sigma: Tensor) -> Float[Tensor, "b o h w"]:
        t = thresholds(self.theta, sigma)
        x = self._conv(x, self.first).contiguous(memory_format=torch.channels_last)  # 5 x faster
        x = shrink(x, t[0])
        for j, (dw, pw) in enumerate(zip(self.depthwise, self.pointwise, strict=True)):
            z = shrink(self._block(x, dw[0], pw[0]), t[1 + 2 * j])
            x = shrink(x + self._block(z, dw[1], pw[1]), t[2 + 2 * j])
        return self._conv(x, self.last)

    def _conv(self, x: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
        reach = self.dilation * (kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, padding=reach, dilation=self.dilation, groups=groups)

    def _block(self, x: Tensor, depthwise: Tensor, pointwise: Tensor) -> Tensor:
        return F.conv2d(self._conv(x, depthwise, groups=len(depthwise)), pointwise)

    def spectral_norms(self) -> Float[Tensor, " layers"]:
        """The largest singular value of the first kernel and of each residual block's."""
        kernels = [self.first.flatten(1)]
        for dw, pw in zip(self.depthwise, self.pointwise, strict=True):
            features = len(pw[0])
            # Each input channel's 5x5 kernel, seen through the rest of the block: (in, out, 9, 9).
            one = dw[0].flatten(0, 1)[:, None] * pw[0].flatten(1).T[..., None, None]
            two = F.conv2d(one, dw[1].flip(-1, -2), padding=4, groups=features)
            kernel = F.conv2d(two, pw[1]).transpose(0, 1).clone()
            kernel[:, :, 4, 4] += torch.eye(features, device=kernel.device, dtype=kernel.dtype)
            kernels.append(kernel.flatten(1))
        return torch.stack([torch.linalg.eigvalsh(K @ K.T)[-1].sqrt() for K in kernels])


class LINNTransform(nn.Module):
    """A decimated wavelet transform with learned lifting: Haar bands, then a `LINN`, per level.

    Each level splits its image into orthonormal Haar bands, one coarse and three details, and
    lifts them; the coarse part goes on to the next level. As many coefficients as pixels, and
    exactly invertible whatever the weights. A new one is the Haar transform, periodization.

    Args:
        levels: number J of levels.
        steps, features, blocks: of each `LINN`.

    Reference: J.-J. Huang and P. L. Dragotti, LINN: lifting inspired invertible neural network for
    image denoising, EUSIPCO 2021.

    >>> coarse, d2, d1 = LINNTransform().analysis(torch.rand(5, 64, 48), sigma=0.1)
    >>> coarse.shape, d2.shape, d1.shape  # doctest: +NORMALIZE_WHITESPACE
    (torch.Size([5, 1, 16, 12]), torch.Size([5, 3, 16, 12]), torch.Size([5, 3, 32, 24]))
    """

    def __init__(
        self, *, levels: int = 2, steps: int = 2, features: int = 32, blocks: int = 2
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels = {levels}: expected at least 1")
        size = {"steps": steps, "features": features, "blocks": blocks}
        self.linn = nn.ModuleList(LINN(3, **size) for _ in range(levels))

    def analysis(self, x: Float[Tensor, "b h w"], sigma: float | Tensor) -> list[Tensor]:
        """The coefficients [c_J, d_J, ..., d_1]: (b, 1, h/2**J, w/2**J), (b, 3, h/2**j, w/2**j).

        Args:
            x: images in [0, 1], both sizes multiples of 2**J.
            sigma: noise level in the same unit, a number or one per image: the width of the dead
                zones inside P and U. At 0 the transform is linear.

        Raises:
            ValueError: other sizes; a sigma that is negative, not finite, or does not fit.
        """
        multiple = 2 ** len(self.linn)
        if any(n % multiple or not n for n in x.shape[-2:]):
            raise ValueError(
                f"images of {tuple(x.shape[-2:])} pixels: both sizes must be multiples of "
                f"{multiple} for {len(self.linn)} levels"
            )
        sigma = noise_levels(sigma, x)
        coarse, details = x[:, None], []
        for linn in self.linn:
            bands = dwt(coarse[:, 0], "haar", mode="periodization", ndim=2)
            coarse, detail = linn(bands[:, :1], bands[:, 1:], sigma)
            details.append(detail)
        return [coarse, *reversed(details)]

    def synthesis(self, coeffs: list[Tensor], sigma: float | Tensor) -> Float[Tensor, "b h w"]:
        """Undo `analysis`, exactly up to rounding, for the same sigma."""
        coarse, *details = coeffs
        sigma = noise_levels(sigma, coarse)
        for linn, detail in zip(reversed(self.linn), details, strict=True):
            bands = torch.cat(linn.inverse(coarse, detail, sigma), 1)
            coarse = idwt(bands, "haar", mode="periodization", ndim=2)[:, None]
        return coarse[:, 0]


class DnINN(nn.Module):
    """Denoising by shrinking the details of a `LINNTransform`; the coarse part stays as it is.

    A new one is soft thresholding in the Haar basis, at 1.5 sigma.

    Args:
        shrinkage: "soft", one threshold per band, or "lista", a `DetailLISTA` per level.
        levels, steps, features, blocks: of the `LINNTransform`.

    Reference: as `LINNTransform`.

    >>> net = DnINN(shrinkage="lista")
    >>> net(torch.rand(2, 30, 50), sigma=25 / 255).shape
    torch.Size([2, 30, 50])
    """

    def __init__(
        self,
        *,
        shrinkage: Shrinkage = "soft",
        levels: int = 2,
        steps: int = 2,
        features: int = 32,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if shrinkage not in ("soft", "lista"):
            raise ValueError(f"shrinkage = {shrinkage!r}: allowed are 'soft', 'lista'")
        kind = DetailSoft if shrinkage == "soft" else DetailLISTA
        self.transform = LINNTransform(levels=levels, steps=steps, features=features, blocks=blocks)
        self.shrinkage = nn.ModuleList(kind(3) for _ in range(levels))

    def forward(
        self, y: Float[Tensor, "*batch h w"], sigma: float | Tensor
    ) -> Float[Tensor, "*batch h w"]:
        """Denoise.

        Args:
            y: noisy gray images in [0, 1]; where a size is no multiple of 2**J the border is
                repeated, and cut again.
            sigma: standard deviation of their noise: a number, or one per image.

        Returns:
            The denoised images, not clipped.

        Raises:
            ValueError: a sigma that is negative, not finite, or does not fit the batch.
        """
        h, w = y.shape[-2:]
        multiple = 2 ** len(self.shrinkage)
        x = F.pad(y.reshape(-1, 1, h, w), (0, -w % multiple, 0, -h % multiple), mode="replicate")
        sigma = sigma.flatten() if isinstance(sigma, Tensor) and sigma.ndim else sigma
        coeffs = self.shrink(self.transform.analysis(x[:, 0], sigma), sigma)
        return self.transform.synthesis(coeffs, sigma)[:, :h, :w].reshape(y.shape)

    def shrink(self, coeffs: list[Tensor], sigma: float | Tensor) -> list[Tensor]:
        """The coefficients with their details shrunk."""
        coarse, *details = coeffs
        sigma = noise_levels(sigma, coarse)
        pairs = zip(reversed(self.shrinkage), details, strict=True)
        return [coarse, *(shrinkage(detail, sigma) for shrinkage, detail in pairs)]


class DetailSoft(nn.Module):
    """Soft threshold of detail channels, one threshold each: softplus(theta) sigma / (50/255).

    It starts at the threshold `START` sigma.
    """

    START = 1.5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((1, channels), self.START * UNIT))

    def forward(self, detail: Float[Tensor, "b c h w"], sigma: Tensor) -> Float[Tensor, "b c h w"]:
        return shrink(detail, thresholds(self.theta, sigma)[0])


class DetailLISTA(nn.Module):
    """LISTA on detail channels: codes g by learned iterations of ISTA, then the synthesis S g.

    g <- 0, then g <- soft(g + A (d - S g), t_k) for each k. A and S, 3x3 convolutions shared by
    the iterations, start with S A = identity on as many features as there are channels and S = 0
    on the others: a new one is `DetailSoft`.

    Args:
        channels: detail channels.
        features: codes per pixel, more than channels.
        iterations: thresholds differ from one to the next.

    Reference: K. Gregor and Y. LeCun, Learning fast approximations of sparse coding, ICML 2010.
    """

    def __init__(self, channels: int, *, features: int = 32, iterations: int = 3) -> None:
        super().__init__()
        analysis = torch.empty(features, channels, 3, 3)
        nn.init.kaiming_uniform_(analysis, mode="fan_out")
        synthesis = torch.zeros(channels, features, 3, 3)
        for kernel in (analysis, synthesis):
            kernel[:channels, :channels] = 0
            kernel[range(channels), range(channels), 1, 1] = 1
        self.analysis, self.synthesis = nn.Parameter(analysis), nn.Parameter(synthesis)
        self.theta = nn.Parameter(torch.full((iterations, features), DetailSoft.START * UNIT))

    def forward(self, detail: Float[Tensor, "b c h w"], sigma: Tensor) -> Float[Tensor, "b c h w"]:
        t = thresholds(self.theta, sigma)
        g = shrink(F.conv2d(detail, self.analysis, padding=1), t[0])
        for threshold in t[1:]:
            residual = detail - F.conv2d(g, self.synthesis, padding=1)
            g = shrink(g + F.conv2d(residual, self.analysis, padding=1), threshold)
        return F.conv2d(g, self.synthesis, padding=1)


def keep_largest(coeffs: list[Tensor], fraction: float | Tensor) -> list[Tensor]:
    """[c_J, d_J, ..., d_1] with all but the M details of largest magnitude set to zero.

    Args:
        coeffs: as `LINNTransform.analysis` returns them; the coarse part is kept whole.
        fraction: M divided by the number of pixels, in [0, 1]: a number, or one per image.

    >>> coeffs = [torch.ones(1, 1, 1, 1), torch.tensor([3.0, -5.0, 4.0]).reshape(1, 3, 1, 1)]
    >>> keep_largest(coeffs, 0.5)[1].flatten()  # 2 of 4 pixels
    tensor([ 0., -5.,  4.])
    """
    coarse, *details = coeffs
    sizes = torch.cat([d.detach().flatten(1).abs() for d in details], 1)
    order = sizes.sort(1, descending=True).values
    pixels = sizes.shape[1] + coarse[0].numel()
    count = (torch.as_tensor(fraction, device=sizes.device) * pixels).round().long()
    order = F.pad(order, (0, coarse[0].numel() + 1), value=-1.0)
    cut = order.gather(1, count.expand(len(order))[:, None])[:, :, None, None]
    return [coarse, *(d * (d.abs() > cut) for d in details)]


def noise_levels(sigma: float | Tensor, x: Float[Tensor, "b ..."]) -> Float[Tensor, "n 1 1 1"]:
    """One noise level for each image of the batch x, checked; (1, 1, 1, 1) if all have the same."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if sigma.ndim and sigma.shape != x.shape[:1]:
        raise ValueError(
            f"sigma of shape {tuple(sigma.shape)}: expected one number, or one for each of the "
            f"{len(x)} images"
        )
    if not bool((torch.isfinite(sigma) & (sigma >= 0)).all()):
        raise ValueError(f"sigma = {sigma.tolist()}: expected at least 0 and finite")
    return sigma.reshape(-1, 1, 1, 1)


def thresholds(
    theta: Float[Tensor, "n channels"], sigma: Tensor
) -> Float[Tensor, "n b channels 1 1"]:
    """softplus(theta) sigma / (50/255): n thresholds per channel, for each sample's sigma."""
    scale = sigma.reshape(-1, 1, 1, 1) / UNIT
    return F.softplus(theta, beta=20)[:, None, :, None, None] * scale
