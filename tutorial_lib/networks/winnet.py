"""WINNet: a wavelet-inspired invertible network for blind denoising, and its noise estimator.

Chapter 07_winnet opens it up; chapter 08_plug_and_play deblurs with it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .linn import LINN, thresholds
from .shrinkage import shrink

PADDINGS = ("replicate", "circular")
STRIP = 128  # rows of patches at a time, in NENet
SIZE = 4  # the split's filters: SIZE x SIZE pixels, SIZE**2 of them


class WINNet(nn.Module):
    """K scales of: undecimated DCT split, LINN, denoising of the details, LINN backwards, merge.

    The coarse channel of a scale goes on to the next, and is left as it is at the last.

    Args:
        levels: number K of scales; the published networks have 1 (173,440 parameters) or 2.
        steps: lifting steps per scale.
        padding: border of the split and of the merge. "replicate" is the published one, and exact
            only 3 pixels away from the border; "circular" is exact everywhere.

    Reference: J.-J. Huang and P. L. Dragotti, WINNet: wavelet-inspired invertible network for
    image denoising, IEEE Trans. Image Process. 31, 2022.

    >>> net = WINNet()
    >>> sum(p.numel() for p in net.parameters())
    173440
    >>> net(torch.rand(2, 64, 48), sigma=25 / 255).shape
    torch.Size([2, 64, 48])
    """

    def __init__(self, levels: int = 1, *, steps: int = 4, padding: str = "replicate") -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels = {levels}: expected at least 1")
        if padding not in PADDINGS:
            raise ValueError(f"padding = {padding!r}: allowed are 'replicate', 'circular'")
        self.padding = padding
        details = SIZE**2 - 1
        self.linn = nn.ModuleList(
            LINN(details, steps=steps, dilation=1 if k == 0 else 2) for k in range(levels)
        )
        self.shrinkage = nn.ModuleList(CLISTA(details) for _ in range(levels))

    def forward(
        self, y: Float[Tensor, "*batch h w"], sigma: float | Tensor
    ) -> Float[Tensor, "*batch h w"]:
        """Denoise.

        Args:
            y: noisy gray images in [0, 1].
            sigma: standard deviation of their noise in the same unit: a number, or one per image.

        Returns:
            The denoised images, not clipped.

        Raises:
            ValueError: an image smaller than 4 x 4, a sigma that is negative or not finite, or
                sigmas that do not fit the batch.
        """
        sigma = _levels(sigma, y)
        coarse = y.reshape(-1, 1, *y.shape[-2:])
        details = []
        for linn, clista in zip(self.linn, self.shrinkage, strict=True):
            coarse, detail = linn(*split(coarse, padding=self.padding), sigma)
            details.append(clista(detail, sigma))
        for linn in reversed(self.linn):
            coarse, detail = linn.inverse(coarse, details.pop(), sigma)
            coarse = merge(coarse, detail, padding=self.padding)
        return coarse.reshape(y.shape)


class CLISTA(nn.Module):
    """Four iterations of ISTA with a learned, shared analysis A and synthesis S.

    g <- A d, then g <- soft(g + A (d - S g), t_k sigma / (50/255)) for each k; the result is S g.
    Training pulls S A to the identity (`WINNet.identity_penalty`), so that without noise nothing
    is lost.

    Args:
        channels: detail channels.
        features: coefficients per pixel.
        iterations: thresholds differ from one to the next, the kernels are shared.
    """

    def __init__(self, channels: int, *, features: int = 64, iterations: int = 4) -> None:
        super().__init__()
        self.analysis = nn.Parameter(torch.empty(features, channels, 3, 3))
        self.synthesis = nn.Parameter(torch.empty(channels, features, 3, 3))
        self.theta = nn.Parameter(torch.empty(iterations, features).uniform_(-0.1, 0))
        nn.init.kaiming_uniform_(self.analysis, mode="fan_out")
        nn.init.kaiming_uniform_(self.synthesis, mode="fan_out")

    def forward(self, detail: Float[Tensor, "b c h w"], sigma: Tensor) -> Float[Tensor, "b c h w"]:
        g = F.conv2d(detail, self.analysis, padding=1)
        for t in thresholds(self.theta, sigma):
            residual = detail - F.conv2d(g, self.synthesis, padding=1)
            g = shrink(g + F.conv2d(residual, self.analysis, padding=1), t)
        return F.conv2d(g, self.synthesis, padding=1)

    def identity_penalty(self) -> Float[Tensor, ""]:
        """||S * A - delta||^2: the squared distance of the composed 5x5 kernels to the identity."""
        kernel = F.conv2d(
            self.analysis.transpose(0, 1), self.synthesis.flip(-1, -2), padding=2
        ).transpose(0, 1)
        delta = torch.zeros_like(kernel)
        delta[:, :, 2, 2] = torch.eye(len(kernel), device=kernel.device, dtype=kernel.dtype)
        return (kernel - delta).square().sum()


class NENet(nn.Module):
    """Noise level from weak-texture patches: a learned selection, then principal components.

    A small network gives each 8x8 patch p_i a weight w_i in (0, 1). Patches without texture span
    few directions, and in the others only noise is left: the noise level is the square root of
    the smallest eigenvalue of sum_i w_i p_i p_i^T / sum_i w_i. That eigenvalue is too small even
    for white noise, because the patches are finitely many: by Bai and Yin's law its root is
    sigma (1 - sqrt(64 / n)) for n patches. We divide by that factor, with the effective number
    n = (sum_i w_i)^2 / sum_i w_i^2; the published estimator does not.

    Nor does it average: a patch whose noise happens to be weak looks flatter and gets a larger
    weight, which makes the estimate too small, by 5 % at 55/255. We average what the network says
    over the patches within 8 pixels, most of which hold other noise, before the sigmoid.

    Reference: WINNet, section on noise estimation; X. Liu, M. Tanaka and M. Okutomi, Single-image
    noise level estimation for blind denoising, IEEE Trans. Image Process. 22, 2013.

    >>> sum(p.numel() for p in NENet().parameters())
    6560
    """

    PATCH = 8

    def __init__(self) -> None:
        super().__init__()
        sizes = [1, *[16] * 6, 1]
        self.kernels = nn.ParameterList(
            torch.empty(o, i, 5) for i, o in zip(sizes[:-1], sizes[1:], strict=True)
        )
        for kernel in self.kernels:
            nn.init.kaiming_uniform_(kernel, mode="fan_out")

    def forward(
        self, y: Float[Tensor, "*batch h w"], *, stride: int = 2
    ) -> Float[Tensor, "*batch"]:
        """The noise level of each image, in its unit.

        Args:
            y: gray images in [0, 1] with white Gaussian noise, at least 32 x 32 pixels.
            stride: the weights are computed for every stride-th patch in both directions, and
                hold for the patches between; the published 1 costs four times the time of 2.

        Raises:
            ValueError: an image that is too small, or a stride below 1.
        """
        if min(y.shape[-2:]) < 32 or stride < 1:
            raise ValueError(
                f"an image of {tuple(y.shape[-2:])} pixels, stride {stride}: expected at least "
                "32 x 32 pixels and a stride of at least 1"
            )
        weight = self.weights(y, stride=stride)
        moment = y.new_zeros(*y.shape[:-2], self.PATCH**2, self.PATCH**2)
        for top in range(0, weight.shape[-2], STRIP):  # a strip of rows at a time saves memory
            w = weight[..., top : top + STRIP, :]
            p = patches(y[..., top : top + w.shape[-2] + self.PATCH - 1, :])
            moment = moment + p.mT @ (w.flatten(-2)[..., None] * p)
        total = weight.sum((-2, -1))
        smallest = torch.linalg.eigvalsh(moment)[..., 0] / total
        n = total.square() / weight.square().sum((-2, -1))
        factor = 1 - (self.PATCH**2 / n).sqrt()
        return smallest.clamp(min=1e-12).sqrt() / factor.clamp(min=0.5)

    def weights(
        self, y: Float[Tensor, "*batch h w"], *, stride: int = 1
    ) -> Float[Tensor, "*batch rows columns"]:
        """How much each patch counts, in (0, 1): large where there is no texture nearby."""
        rows, columns = (n - self.PATCH + 1 for n in y.shape[-2:])
        z = patches(y, stride=stride)
        grid = (*z.shape[:-2], len(range(0, rows, stride)), len(range(0, columns, stride)))
        z = z.reshape(1, 1, -1, self.PATCH**2)  # a patch a row: twice as fast as conv1d
        for kernel in self.kernels[:-1]:
            z = F.conv2d(z, kernel[:, :, None]).contiguous(memory_format=torch.channels_last)
            z = F.relu(z)
        z = F.conv2d(z, self.kernels[-1][:, :, None])
        z = z.mean((0, 1, 3)).reshape(-1, 1, *grid[-2:])
        reach = self.PATCH // stride
        z = F.avg_pool2d(z, 2 * reach + 1, 1, reach, count_include_pad=False)
        w = z.sigmoid().reshape(grid)
        w = w.repeat_interleave(stride, -2).repeat_interleave(stride, -1)
        return w[..., :rows, :columns]


def patches(y: Float[Tensor, "*batch h w"], *, stride: int = 1) -> Float[Tensor, "*batch n 64"]:
    """The 8x8 patches of images, row by row, each as one signal of length 64."""
    p = y.unfold(-2, NENet.PATCH, stride).unfold(-2, NENet.PATCH, stride)
    return p.flatten(-2).flatten(-3, -2)


def split(
    x: Float[Tensor, "b 1 h w"], *, padding: str = "replicate"
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 15 h w"]]:
    """The undecimated DCT split: one coarse and 15 detail channels, as large as the image.

    The filters are the rows of the orthonormal DCT-II of length 16, each folded row by row into a
    4x4 kernel, so white noise keeps its level in each channel. The coarse kernel is constant, 1/4.
    """
    z = F.conv2d(_pad(x, (1, 2), padding), dct_kernels(x))
    z = z.contiguous(memory_format=torch.channels_last)
    return z[:, :1], z[:, 1:]


def merge(
    coarse: Float[Tensor, "b 1 h w"],
    detail: Float[Tensor, "b 15 h w"],
    *,
    padding: str = "replicate",
) -> Float[Tensor, "b 1 h w"]:
    """Inverse of `split`: its transpose, divided by the 16 patches that cover a pixel.

    Exact everywhere with "circular" borders, and 3 pixels away from the border with "replicate".
    """
    z = _pad(torch.cat([coarse, detail], 1), (2, 1), padding)
    kernels = dct_kernels(z).flip(-1, -2).transpose(0, 1)
    return F.conv2d(z, kernels) / SIZE**2


def dct_kernels(like: Tensor) -> Float[Tensor, "16 1 4 4"]:
    """The 16 filters, with the dtype and on the device of `like`."""
    n = SIZE**2
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(torch.pi * k[:, None] * (k + 0.5) / n) * (2 / n) ** 0.5
    rows[0] /= 2**0.5
    return rows.to(like).reshape(n, 1, SIZE, SIZE)


def _pad(x: Tensor, reach: tuple[int, int], padding: str) -> Tensor:
    return F.pad(x, (*reach, *reach), mode=padding)


def _levels(sigma: float | Tensor, y: Tensor) -> Float[Tensor, "b 1 1 1"]:
    """Each image's noise level, checked."""
    if y.ndim < 2 or min(y.shape[-2:]) < SIZE:
        raise ValueError(f"images of shape {tuple(y.shape)}: expected (*batch, h, w), h, w >= 4")
    sigma = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
    if sigma.ndim and sigma.shape != y.shape[:-2]:
        raise ValueError(
            f"sigma of shape {tuple(sigma.shape)}: expected one number, or one per image "
            f"{tuple(y.shape[:-2])}"
        )
    if not bool((torch.isfinite(sigma) & (sigma >= 0)).all()):
        raise ValueError(f"sigma = {sigma.tolist()}: expected at least 0 and finite")
    return sigma.reshape(-1, 1, 1, 1)
