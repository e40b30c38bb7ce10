"""Deep coupled ISTA: the test-time coding of a joint multimodal dictionary, unrolled and learned.

A patch x of the target at low resolution and a patch y of the guide, each without its mean, are
coded in two branches of K layers; the codes are fused; a dictionary gives the patch z of the target
at high resolution. Patches and codes are rows. Chapter 13_coupled_ista trains the network.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import fold, linear, pad

from tutorial_lib.dictionary import extract_patches
from tutorial_lib.multimodal import JointModel

from .shrinkage import shrink

CHUNK = 2**14  # patches that `restore` takes at once


def branch(
    v: Float[Tensor, "*batch p"],
    W: Float[Tensor, "m p"],
    D: Float[Tensor, "K p m"] | Sequence[Tensor],
    P: Float[Tensor, "K m p"] | Sequence[Tensor],
    thresholds: Float[Tensor, "K m"] | Sequence[Tensor],
) -> list[Float[Tensor, "*batch m"]]:
    """The codes b_0 = W v and b_k = S_{T_k}(b_{k-1} + P_k (v - D_k b_{k-1})), k = 1 ... K.

    With D_k = D, P_k = t D^T and T_k = t lam the last K are the iterates of `solvers.ista` for
    1/2 ||v - D b||^2 + lam ||b||_1 from b_0, which is not shrunk.

    Reference: X. Deng, P. L. Dragotti, Deep coupled ISTA network for multi-modal image
    super-resolution, IEEE Trans. Image Processing 29, 2020.

    >>> v, I = torch.tensor([[3.0, 0.5]]), torch.eye(2)
    >>> branch(v, 0 * I, I[None], I[None], torch.ones(1, 2))[-1]
    tensor([[2., 0.]])
    """
    codes = [linear(v, W)]
    for D_k, P_k, threshold in zip(D, P, thresholds, strict=True):
        b = codes[-1]
        b = b + linear(v - linear(b, D_k), P_k)
        codes.append(shrink(b, threshold.to(b)))
    return codes


class Branch(nn.Module):
    """The weights of one branch; thresholds are positive because their logarithms are learned.

    Args:
        size: pixels a side of a patch, p = size^2.
        atoms: m.
        layers: K.
        threshold: of all atoms, at the start.
    """

    def __init__(self, size: int, atoms: int, layers: int, threshold: float) -> None:
        super().__init__()
        p = size**2
        self.W = nn.Parameter(xavier(atoms, p))
        self.D = nn.Parameter(torch.stack([xavier(p, atoms) for _ in range(layers)]))
        self.P = nn.Parameter(torch.stack([xavier(atoms, p) for _ in range(layers)]))
        self.log_thresholds = nn.Parameter(torch.full((layers, atoms), math.log(threshold)))

    def forward(self, v: Float[Tensor, "*batch p"]) -> list[Float[Tensor, "*batch m"]]:
        return branch(v, self.W, self.D, self.P, self.log_thresholds.exp())


class CoupledISTA(nn.Module):
    """From patches x and y to the patch z: two branches, fusion, output dictionary.

        a, b = the codes of x and of y after K layers
        c = S_T(W_x a + W_y b),    z = D_z c + mean(x)

    Both patches lose their means first. 1,151,488 parameters with the published sizes.

    Args:
        size: pixels a side of a patch: 8 is published for scale 4, 12 for 8, 16 for 16.
        atoms: m, the same for all three dictionaries.
        layers: K.
        guided: False leaves the branch of y and W_y out: the network of a single modality.
        threshold: at the start, of all atoms in all layers.

    The start is Xavier's; `ista_start` and `loa_start` make others.

    Raises:
        ValueError: numbers below 1, a threshold that is not positive.

    Reference: as `branch`.

    >>> sum(p.numel() for p in CoupledISTA().parameters())
    1151488
    """

    def __init__(
        self,
        size: int = 8,
        atoms: int = 512,
        layers: int = 4,
        *,
        guided: bool = True,
        threshold: float = 1e-3,
    ) -> None:
        super().__init__()
        if min(size, atoms, layers) < 1 or not 0 < threshold < math.inf:
            raise ValueError(
                f"size = {size}, atoms = {atoms}, layers = {layers}: at least 1 is needed; "
                f"threshold = {threshold}: a positive number"
            )
        self.size = size
        self.x = Branch(size, atoms, layers, threshold)
        self.y = Branch(size, atoms, layers, threshold) if guided else None
        self.W_x = nn.Parameter(xavier(atoms, atoms))
        self.W_y = nn.Parameter(xavier(atoms, atoms)) if guided else None
        self.log_threshold = nn.Parameter(torch.full((atoms,), math.log(threshold)))
        self.D_z = nn.Parameter(xavier(size**2, atoms))

    def codes(
        self, x: Float[Tensor, "*batch p"], y: Float[Tensor, "*batch p"] | None = None
    ) -> tuple[list[Tensor], list[Tensor], Float[Tensor, "*batch m"]]:
        """The codes of both branches, layer by layer (none of y without a guide), and c."""
        a, b = self.x(_without_mean(x, self.size)), []
        v = linear(a[-1], self.W_x)
        if self.y is not None:
            if y is None or y.shape != x.shape:
                shape = None if y is None else tuple(y.shape)
                raise ValueError(f"y of shape {shape}: that of x, {tuple(x.shape)}, is needed")
            b = self.y(_without_mean(y, self.size))
            v = v + linear(b[-1], self.W_y)
        return a, b, shrink(v, self.log_threshold.exp().to(v))

    def forward(
        self, x: Float[Tensor, "*batch p"], y: Float[Tensor, "*batch p"] | None = None
    ) -> Float[Tensor, "*batch p"]:
        """The patches z, means of x added; without a guide y is not looked at."""
        return linear(self.codes(x, y)[2], self.D_z) + x.mean(-1, keepdim=True)


def restore(
    network: CoupledISTA,
    x: Float[Tensor, "*batch h w"],
    y: Float[Tensor, "*_batch _h _w"] | None = None,
    *,
    stride: int = 1,
) -> Float[Tensor, "*batch h w"]:
    """Images of any size: patches at distance `stride`, in each pixel the mean of their estimates.

    Rows of patches are taken in strips, so that memory is bounded by `CHUNK` patches, or one row.
    A picture that patches do not fit into is continued by its border for the time.

    Args:
        network: trained or not; gradients pass where they are switched on.
        x: the target at low resolution, enlarged to the grid of y.
        y: the guide; not looked at by a network without one.
        stride: 1 takes all patches; up to `network.size`, and stride^2 times faster.

    Raises:
        ValueError: shapes that differ, where a guide is needed; another stride.
    """
    size, shape = network.size, x.shape
    if not 1 <= stride <= size:
        raise ValueError(f"stride = {stride}: 1 to {size} is needed")
    if network.y is not None and (y is None or y.shape != shape):
        raise ValueError(
            f"x {tuple(shape)} and y {None if y is None else tuple(y.shape)}: one shape is needed"
        )
    images = torch.stack([x] if network.y is None else [x, y]).reshape(-1, 1, *shape[-2:])
    more = [(size - n) % stride if n > size else size - n for n in shape[-2:]]
    images = pad(images, (0, more[1], 0, more[0]), mode="replicate")
    images = images.reshape(-1, math.prod(shape[:-2]), *images.shape[-2:])
    number, h, w = images.shape[1:]
    total, starts = torch.zeros_like(images[0]), range(0, h - size + 1, stride)
    rows = max(1, CHUNK // (number * len(range(0, w - size + 1, stride))))
    for i in range(0, len(starts), rows):
        strip = slice(starts[i], starts[min(i + rows, len(starts)) - 1] + size)
        z = network(*extract_patches(images[..., strip, :], size=size, stride=stride))
        z = fold(z.to(images).mT, (strip.stop - strip.start, w), size, stride=stride)
        total[:, strip] += z[:, 0].to(total)
    cover = torch.outer(_cover(h, size, stride), _cover(w, size, stride)).to(total)
    return (total / cover)[..., : shape[-2], : shape[-1]].reshape(shape)


def _cover(n: int, size: int, stride: int) -> Float[Tensor, " n"]:
    """How many windows cover each of n samples."""
    ones = torch.ones(1, size, (n - size) // stride + 1)
    return fold(ones, (n, 1), (size, 1), stride=(stride, 1)).flatten()


# Where training begins ---------------------------------------------------------------------------


@torch.no_grad()
def ista_start(
    network: CoupledISTA, model: JointModel, *, nu: float, threshold: float
) -> CoupledISTA:
    """Set the weights to those of ISTA: each branch is K steps for a lasso, W_x, W_y, D_z as given.

    W = t D^T, D_k = D, P_k = t D^T, T_k = t nu with t = 1 / ||D||^2, for x and for y.

    Args:
        network: changed in place.
        model: dictionaries (p, m) and links (m, m); D_y and W_y are not used without a guide.
        nu: weight of ||b||_1 in both lassos, positive.
        threshold: of the fused code, positive: nu_z / (2 alpha).

    Raises:
        ValueError: sizes that do not fit, weights that are not positive.
    """
    _check_start(network, model, nu, threshold)
    sides = [(network.x, model.D_x)] + ([(network.y, model.D_y)] if network.y else [])
    for side, D in sides:
        t = 1 / torch.linalg.matrix_norm(D, 2) ** 2
        side.W.copy_(t * D.mT)
        side.D.copy_(D.expand_as(side.D))
        side.P.copy_(t * D.mT.expand_as(side.P))
        side.log_thresholds.fill_(math.log(t * nu))
    network.W_x.copy_(model.W_x)
    if network.y:
        network.W_y.copy_(model.W_y)
    network.log_threshold.fill_(math.log(threshold))
    network.D_z.copy_(model.D_z)
    return network


@torch.no_grad()
def loa_start(
    network: CoupledISTA,
    model: JointModel,
    signals: tuple[Float[Tensor, "N p"], Float[Tensor, "N p"], Float[Tensor, "N p"]],
    codes: tuple[Float[Tensor, "N m"], Float[Tensor, "N m"], Float[Tensor, "N m"]],
    *,
    ridge: float = 0.1,
) -> CoupledISTA:
    """Set the weights layer by layer, so that the codes come near those of a joint dictionary.

    Our reconstruction of the layer-wise optimisation (LOA) of the reference, whose steps are not
    printed there in full. With X = signals[0], its codes A, and B_k the codes after layer k:

        W   = argmin ||A - W X||^2 + e ||W - t D_x^T||^2,   B_0 = W X
        D_k = argmin ||X - D B_{k-1}||^2 + e ||D - D_x||^2
        P_k = argmin ||A - B_{k-1} - P R||^2 + e ||P - t D_x^T||^2,   R = X - D_k B_{k-1}
        T_k = argmin ||A - S_T(B_{k-1} + P_k R)||^2, each atom for itself

    each e being `ridge` times the mean power of an entry of X for W and P_k, of B_{k-1} for D_k
    (relative to R, which is small, P_k would grow large). Likewise for y. Then W_x, W_y and T from
    the last codes to the codes of z, and D_z from S_T(...) to z, in the same way. All but the
    thresholds (`best_threshold`) are least-squares problems.

    Args:
        network: with both branches; changed in place.
        model, codes: of `learn_joint`, for
        signals: x, y and z as rows; x and y without mean, z less the mean of x.
        ridge: positive.

    Raises:
        ValueError: sizes that do not fit, no guide, ridge that is not positive.

    Reference: as `branch`.
    """
    _check_start(network, model, ridge)
    if network.y is None:
        raise ValueError("the start needs both branches, and this network has no guide")
    last = []
    for side, D, v, target in zip((network.x, network.y), model, signals, codes, strict=False):
        step = D.mT / torch.linalg.matrix_norm(D, 2) ** 2
        e = ridge * _power(v)
        side.W.copy_(fit_linear(v, target, step, e))
        b = linear(v, side.W)
        for k in range(len(side.D)):
            side.D[k] = fit_linear(b, v, D, ridge * _power(b))
            residual = v - linear(b, side.D[k])
            side.P[k] = fit_linear(residual, target - b, step, e)
            b = b + linear(residual, side.P[k])
            threshold = best_threshold(b, target)
            side.log_thresholds[k] = threshold.log()
            b = shrink(b, threshold)
        last.append(b)
    both, links = torch.cat(last, 1), torch.cat([model.W_x, model.W_y], 1)
    W = fit_linear(both, codes[2], links, ridge * _power(both))
    c = linear(both, W)
    threshold = best_threshold(c, codes[2])
    for own, value in zip((network.W_x, network.W_y), W.chunk(2, 1), strict=True):
        own.copy_(value)
    network.log_threshold.copy_(threshold.log())
    c = shrink(c, threshold)
    network.D_z.copy_(fit_linear(c, signals[2], model.D_z, ridge * _power(c)))
    return network


def fit_linear(
    source: Float[Tensor, "N s"],
    target: Float[Tensor, "N t"],
    near: Float[Tensor, "t s"],
    e: float,
) -> Float[Tensor, "t s"]:
    """argmin_M ||target - M source||_F^2 + e ||M - near||_F^2, in double precision.

    >>> fit_linear(torch.ones(4, 1), 3 * torch.ones(4, 1), torch.zeros(1, 1), 2.0)
    tensor([[2.]])
    """
    source, target = source.double(), target.double()
    system = source.mT @ source + e * torch.eye(source.shape[1]).to(source)
    right = source.mT @ target + e * near.mT.double()
    return torch.linalg.solve(system, right).mT.to(near)


def _power(v: Tensor) -> float:
    """Mean over the entries of a row of the sum over all rows of their squares."""
    return max(v.double().square().sum(0).mean().item(), 1e-30)


def best_threshold(
    v: Float[Tensor, "N m"], target: Float[Tensor, "N m"], *, least: float = 1e-6
) -> Float[Tensor, " m"]:
    """argmin_T ||target - S_T(v)||^2 for each column, exactly, but at least `least`.

    With |v| sorted downwards, the first j entries are not zero for T between |v_j+1| and |v_j|, and
    there the error is a parabola in T with its minimum at the mean of sign(v) (v - target).

    >>> best_threshold(torch.tensor([[3.0], [-2.0], [0.5]]), torch.tensor([[2.0], [-1.0], [0.0]]))
    tensor([1.])
    """
    size, order = v.abs().double().sort(0, descending=True)
    a = (target * v.sign()).gather(0, order).double()
    count = torch.arange(1, len(v) + 1).to(size)[:, None]
    d = size - a
    first, second = d.cumsum(0), d.square().cumsum(0)
    rest = a.square().sum(0) - a.square().cumsum(0)
    low = torch.cat([size[1:], torch.zeros_like(size[:1])])
    T = torch.minimum(torch.maximum(first / count, low), size)
    error = count * T**2 - 2 * T * first + second + rest
    best = T.gather(0, error.argmin(0, keepdim=True))[0]
    none = a.square().sum(0) <= error.amin(0)  # nothing kept at all
    return torch.where(none, size[0], best).clamp(min=least).to(v)


def _check_start(network: CoupledISTA, model: JointModel, *weights: float) -> None:
    p, m = network.D_z.shape
    shapes = [tuple(v.shape) for v in model]
    if shapes != [(p, m)] * 3 + [(m, m)] * 2:
        raise ValueError(f"model of shapes {shapes}: ({p}, {m}) and ({m}, {m}) are needed")
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"weights {weights}: positive numbers are needed")


def xavier(rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Uniform in +-sqrt(6 / (rows + columns))."""
    return nn.init.xavier_uniform_(torch.empty(rows, columns))


def _without_mean(v: Tensor, size: int) -> Tensor:
    if v.ndim < 1 or v.shape[-1] != size**2:
        raise ValueError(f"patches of shape {tuple(v.shape)}: (*batch, {size**2}) is needed")
    return v - v.mean(-1, keepdim=True)
