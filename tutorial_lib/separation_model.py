"""The separation model: its objective, and the update of each of its blocks."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .exclusion import haar_details, prox_exclusion


class Weights(NamedTuple):
    """The numbers in the objective: for X-rays and bands of mean 0 and mean square 1."""

    gamma: float = 2.0
    tau1: float = 1.0
    tau2: float = 1.0
    lam1: float = 0.04
    lam2: float = 0.2
    mu: float = 0.3


class State(NamedTuple):
    """All unknowns: latent images, feature maps, and the filters that are learned."""

    y1: Float[Tensor, "h w"]
    y2: Float[Tensor, "h w"]
    z1: Float[Tensor, "k h w"]
    z2: Float[Tensor, "k h w"]
    theta: Float[Tensor, "k a a"]
    psi: Float[Tensor, "1 b b"]
    phi: Float[Tensor, "s c c"]


TERMS = ("X-ray", "visible", "latent 1", "latent 2", "sparse 1", "sparse 2", "exclusion")


def convolve(
    filters: Float[Tensor, "k s s"], maps: Float[Tensor, "#k h w"]
) -> Float[Tensor, "k h w"]:
    """filters_k * maps_k for each k, circular, centred on the middle of filters of odd size.

    >>> convolve(torch.ones(1, 3, 3) / 9, torch.ones(1, 4, 4)).unique()
    tensor([1.])
    """
    return correlate(filters.flip(-2, -1), maps)


def correlate(
    filters: Float[Tensor, "k s s"], maps: Float[Tensor, "#k h w"]
) -> Float[Tensor, "k h w"]:
    """The adjoint of `convolve` in each map: the products with the shifted filter."""
    r = filters.shape[-1] // 2
    maps = F.pad(maps[None], (r, r, r, r), mode="circular")
    maps = maps.expand(-1, len(filters), -1, -1)
    return F.conv2d(maps, filters[:, None], groups=len(filters))[0]


def synthesis(theta: Float[Tensor, "k s s"], z: Float[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """sum_k theta_k * z_k, circular; its adjoint is `correlate(theta, y[None])`."""
    r = theta.shape[-1] // 2
    z = F.pad(z[None], (r, r, r, r), mode="circular")
    return F.conv2d(z, theta.flip(-2, -1)[None])[0, 0]


def terms(
    x: Float[Tensor, "h w"], bands: Float[Tensor, "s h w"], state: State, weights: Weights
) -> Float[Tensor, "7"]:
    """The seven terms of the objective, in the order of `TERMS`; no square has a factor 1/2.

        ||x - psi*y1 - psi*y2||^2,   gamma sum_s ||r_s - phi_s*y1||^2,
        tau_i ||y_i - sum_k theta_k*z_ik||^2,   lam_i sum_k ||z_ik||_1   (i = 1, 2),
        mu ||(W y1) . (W y2)||_1   with W = `haar_details`.

    Reference: W. Pu et al., Mixed X-ray image separation for artworks with concealed designs, IEEE
    Trans. Image Processing 31, 2022.
    """
    y1, y2, z1, z2, theta, psi, phi = state
    return torch.stack(
        [
            _squared(x - convolve(psi, (y1 + y2)[None])[0]),
            weights.gamma * _squared(bands - convolve(phi, y1[None])),
            weights.tau1 * _squared(y1 - synthesis(theta, z1)),
            weights.tau2 * _squared(y2 - synthesis(theta, z2)),
            weights.lam1 * z1.abs().sum(),
            weights.lam2 * z2.abs().sum(),
            weights.mu * (haar_details(y1) * haar_details(y2)).abs().sum(),
        ]
    )


def _squared(e: Tensor) -> Tensor:
    return e.square().sum()


def gain(filters: Float[Tensor, "k a b"], shape: tuple[int, int]) -> Tensor:
    """max over frequencies of sum_k |filters_k^|^2: the squared norm of `synthesis` or its adjoint.

    >>> gain(torch.ones(1, 3, 3), (8, 8))
    tensor(81.)
    """
    return torch.fft.rfft2(filters, s=shape).abs().square().sum(0).max()


# Its updates: each one lowers the objective in its own block -------------------------------------


def update_codes(
    z: Float[Tensor, "k h w"],
    y: Float[Tensor, "h w"],
    theta: Float[Tensor, "k s s"],
    *,
    tau: float | int,
    lam: float | int,
    steps: int = 1,
) -> Float[Tensor, "k h w"]:
    """`steps` of ISTA on tau ||y - sum_k theta_k*z_k||^2 + lam sum_k ||z_k||_1 over z.

    z <- S_{lam/L}(z - (2 tau/L) theta^T (theta z - y)), L = 2 tau ||theta||^2.
    """
    if tau == 0:
        return z
    L = 2 * tau * gain(theta, tuple(y.shape))
    for _ in range(steps):
        v = z - 2 * tau / L * correlate(theta, (synthesis(theta, z) - y)[None])
        z = v - v.clamp(-lam / L, lam / L)
    return z


def update_layer(
    which: int,
    x: Float[Tensor, "h w"],
    bands: Float[Tensor, "s h w"],
    state: State,
    weights: Weights,
    *,
    dual: Float[Tensor, "3 h w"] | None = None,
    steps: int = 10,
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "3 h w"]]:
    """One proximal gradient step on y1 (`which` = 1) or y2 (2), the other one fixed.

    y <- argmin_u 1/2 ||u - (y - g/L)||^2 + mu/L ||(W other) . (W u)||_1, where g is the gradient of
    the squares that hold y and L its Lipschitz constant. The dual steps are repeated until this
    objective is at most what it is at y: then the objective of the model cannot rise.

    Returns:
        The new y, and the dual to begin with next time.
    """
    L = layer_lipschitz(which, state, weights)
    y, other = (state.y1, state.y2) if which == 1 else (state.y2, state.y1)
    v = y - layer_gradient(which, x, bands, state, weights) / L
    if weights.mu == 0:
        return v, torch.zeros_like(haar_details(v)) if dual is None else dual
    weight = weights.mu / L * haar_details(other).abs()

    def cost(u: Tensor) -> Tensor:
        return (u - v).double().square().sum() / 2 + (weight * haar_details(u).abs()).double().sum()

    before = cost(y)
    for _ in range(20):
        new, dual, _ = prox_exclusion(v, weight, dual=dual, steps=steps)
        if cost(new) <= before:
            return new, dual
    return y, dual


def layer_gradient(
    which: int,
    x: Float[Tensor, "h w"],
    bands: Float[Tensor, "s h w"],
    state: State,
    weights: Weights,
) -> Float[Tensor, "h w"]:
    """The gradient, in y1 or y2, of the squares of `terms`.

    2 psi^T (psi*(y1 + y2) - x) + 2 tau_i (y_i - theta z_i); for y1 also 2 gamma phi^T (phi y1 - r).
    """
    y1, y2, z1, z2, theta, psi, phi = state
    g = 2 * correlate(psi, convolve(psi, (y1 + y2)[None]) - x)[0]
    if which == 2:
        return g + 2 * weights.tau2 * (y2 - synthesis(theta, z2))
    link = correlate(phi, convolve(phi, y1[None]) - bands).sum(0)
    return g + 2 * weights.tau1 * (y1 - synthesis(theta, z1)) + 2 * weights.gamma * link


def layer_lipschitz(which: int, state: State, weights: Weights) -> Tensor:
    """2 (||psi||^2 + tau_2), or 2 (||psi||^2 + tau_1 + gamma ||phi||^2) for y1."""
    shape = tuple(state.y1.shape)
    if which == 2:
        return 2 * (gain(state.psi, shape) + weights.tau2)
    return 2 * (gain(state.psi, shape) + weights.tau1 + weights.gamma * gain(state.phi, shape))


def update_phi(
    y1: Float[Tensor, "h w"], bands: Float[Tensor, "s h w"], *, size: int
) -> Float[Tensor, "s size size"]:
    """argmin over filters of size x size of sum_s ||r_s - phi_s*y1||^2: least squares."""
    r = size // 2
    shifts = [y1.roll((i, j), (0, 1)) for i in range(-r, r + 1) for j in range(-r, r + 1)]
    A = torch.stack(shifts).flatten(1).double()
    gram = A @ A.T
    gram.diagonal().add_(1e-12 * gram.diagonal().mean())
    return (
        torch.linalg.solve(gram, A @ bands.flatten(1).double().T).T.to(y1).reshape(-1, size, size)
    )


def update_theta(state: State, weights: Weights) -> Float[Tensor, "k a a"]:
    """A projected gradient step on tau1 ||y1 - theta z1||^2 + tau2 ||y2 - theta z2||^2.

    Each filter is projected on ||theta_k|| <= 1.
    """
    y1, y2, z1, z2, theta, _, _ = state
    shape, size = tuple(y1.shape), theta.shape[-1]
    g, L = torch.zeros_like(theta), 0.0
    for tau, y, z in ((weights.tau1, y1, z1), (weights.tau2, y2, z2)):
        g += 2 * tau * _filter_gradient(synthesis(theta, z) - y, z, size)
        L += 2 * tau * gain(z, shape)
    theta = theta - g / L if L > 0 else theta
    return theta / torch.linalg.vector_norm(theta, dim=(1, 2), keepdim=True).clamp(min=1)


def update_psi(x: Float[Tensor, "h w"], state: State) -> Float[Tensor, "1 b b"]:
    """A projected gradient step on ||x - psi*(y1 + y2)||^2, projected on ||psi|| <= 1."""
    y = (state.y1 + state.y2)[None]
    g = 2 * _filter_gradient(convolve(state.psi, y)[0] - x, y, state.psi.shape[-1])
    psi = state.psi - g / (2 * gain(y, tuple(x.shape)))
    return psi / torch.linalg.vector_norm(psi).clamp(min=1)


def _filter_gradient(e: Tensor, z: Tensor, size: int) -> Tensor:
    """The products of the error with the shifted maps: (k, size, size)."""
    cross = torch.fft.irfft2(torch.fft.rfft2(e) * torch.fft.rfft2(z).conj(), s=e.shape)
    r = size // 2
    return cross.roll((r, r), (-2, -1))[:, :size, :size]
