"""LISTA and its refinements: a fixed number of ISTA's steps as the layers of a network.

All layers are x <- S(v), v affine in the code x and the observation y, S the soft threshold, which
may spare the largest entries. Chapter 11_lista trains them.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .shrinkage import shrink as soft

WEIGHTS = ("fixed", "shared", "each")
Percents = Sequence[float | int]


def shrink(
    v: Float[Tensor, "*batch n"], threshold: float | Tensor, percent: float | int = 0
) -> Float[Tensor, "*batch n"]:
    """Soft threshold that leaves the largest entries as they are (support selection).

    An entry passes unchanged if it is among the `percent` % largest magnitudes of its row and
    above the threshold; all others are shrunk. Which ones pass is not differentiated.

    Args:
        v: one signal a row.
        threshold: 0 or more.
        percent: 0 to 100, of the n entries, rounded down to whole entries; 0 is the plain soft
            threshold.

    Reference: X. Chen, J. Liu, Z. Wang, W. Yin, Theoretical linear convergence of unfolded ISTA
    and its practical weights and thresholds, NeurIPS 2018.

    >>> shrink(torch.tensor([3.0, -2.0, 0.5, 1.5]), 1.0, percent=25)
    tensor([ 3.0000, -1.0000,  0.0000,  0.5000])
    """
    box = threshold if isinstance(threshold, Tensor) else v.new_tensor(threshold)
    shrunk = soft(v, box)
    kept = int(v.shape[-1] * percent / 100)
    if kept == 0:
        return shrunk
    magnitude = v.detach().abs()
    smallest = magnitude.topk(kept, dim=-1).values[..., -1:]
    return torch.where((magnitude >= smallest) & (magnitude > box), v, shrunk)


def lista(
    y: Float[Tensor, "*batch m"],
    B: Float[Tensor, "n m"],
    Q: Float[Tensor, "n n"],
    thresholds: Float[Tensor, " K"],
) -> list[Float[Tensor, "*batch n"]]:
    """The codes after each layer of x <- S_{T_k}(B y + Q x), from x = 0.

    With B = t A^T, Q = I - t A^T A and T_k = t lam these are the iterates of `solvers.ista`.

    Reference: K. Gregor, Y. LeCun, Learning fast approximations of sparse coding, ICML 2010.

    >>> y, B, Q = torch.tensor([3.0, 0.5]), torch.eye(2), torch.zeros(2, 2)
    >>> lista(y, B, Q, torch.tensor([1.0, 0.0]))
    [tensor([2., 0.]), tensor([3.0000, 0.5000])]
    """
    b = y @ B.mT
    codes = [shrink(b, thresholds[0])]
    for threshold in thresholds[1:]:
        codes.append(shrink(b + codes[-1] @ Q.mT, threshold))
    return codes


def coupled_lista(
    y: Float[Tensor, "*batch m"],
    A: Float[Tensor, "m n"],
    weights: Float[Tensor, "m n"] | Float[Tensor, "K m n"],
    steps: Float[Tensor, " K"],
    thresholds: Float[Tensor, " K"],
    percents: Percents | None = None,
) -> list[Float[Tensor, "*batch n"]]:
    """The codes after each layer of x <- S_{T_k}(x + s_k W_k^T (y - A x)), from x = 0.

    Where y = A x exactly, x stays as it is, whatever the weights, but for the threshold. With
    W = A, s_k = t and T_k = t lam these are the iterates of `solvers.ista`.

    Args:
        y: observations, one a row.
        A: the matrix that they come from.
        weights: one W for all layers, or one for each.
        steps: s_k.
        thresholds: T_k.
        percents: of the entries that pass unshrunk in each layer (`shrink`); None: of none.

    Reference: X. Chen, J. Liu, Z. Wang, W. Yin, NeurIPS 2018.

    >>> A = torch.eye(2)
    >>> coupled_lista(torch.tensor([3.0, 0.5]), A, A, torch.ones(1), torch.ones(1))
    [tensor([2., 0.])]
    """
    percents = [0] * len(steps) if percents is None else percents
    codes: list[Tensor] = []
    for k, (step, threshold, percent) in enumerate(zip(steps, thresholds, percents, strict=True)):
        W = weights if weights.ndim == 2 else weights[k]
        if codes:
            v = codes[-1] + step * ((y - codes[-1] @ A.mT) @ W)
        else:
            v = step * (y @ W)
        codes.append(shrink(v, threshold, percent))
    return codes


def analytic_weight(A: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """argmin_W ||W^T A||_F^2 subject to w_i^T a_i = 1 for each column i.

    The problem falls apart into one for each column, and Lagrange gives
    w_i = (A A^T)^-1 a_i / (a_i^T (A A^T)^-1 a_i).

    Args:
        A: of full row rank, no more rows than columns.

    Raises:
        ValueError: more rows than columns, or A A^T singular.

    Reference: J. Liu, X. Chen, Z. Wang, W. Yin, ALISTA: analytic weights are as good as learned
    weights in LISTA, ICLR 2019; they minimise by projected gradients.

    >>> A = torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])
    >>> (analytic_weight(A).mT @ A).diagonal()
    tensor([1., 1., 1.])
    """
    m, n = A.shape
    if m > n:
        raise ValueError(f"A of shape {(m, n)}: expected no more rows than columns")
    factor, info = torch.linalg.cholesky_ex(A @ A.mT)
    # A pivot that is rounding error only: the rows depend on each other.
    pivot = factor.diagonal().min() if int(info) == 0 else factor.new_zeros(())
    if float(pivot) <= math.sqrt(m * torch.finfo(A.dtype).eps) * float(A.norm()):
        raise ValueError(f"A of shape {(m, n)}: its rows are linearly dependent")
    V = torch.cholesky_solve(A, factor)
    return V / (V * A).sum(0)


def coherence(W: Float[Tensor, "m n"], A: Float[Tensor, "m n"]) -> Float[Tensor, ""]:
    """max_{i != j} |w_i^T a_j|: how much the columns of A disturb each other, seen through W.

    With W = A of unit columns it is the mutual coherence of A.

    >>> A = torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])
    >>> coherence(A, A)
    tensor(0.8000)
    """
    products = (W.mT @ A).abs()
    return (products - products.diagonal().diag()).max()


def selection(layers: int, *, slope: float = 1.2, largest: float = 13.0) -> list[float]:
    """The published schedule of percentages for support selection, min(slope k, largest).

    >>> selection(4, slope=1.0, largest=3.0)
    [1.0, 2.0, 3.0, 3.0]
    """
    return [min(slope * (k + 1), largest) for k in range(layers)]


class LISTA(nn.Module):
    """Gregor and LeCun's network: B, Q and the thresholds are learned, B and Q shared by layers.

    It starts as ISTA with step 1/||A||^2, unless `weight`, `step` and `thresholds` say otherwise:
    B = t W^T, Q = I - t W^T A.

    Args:
        A: (m, n), the matrix that observations come from.
        layers: K.
        weight: (m, n), W of the start; None: A.
        lam: weight of the l1 norm in the ISTA that it starts from.
        step: t; None: 1/||A||^2.
        thresholds: first T_k, one number or one for each layer; None: lam/||A||^2.

    Raises:
        ValueError: A that is not a finite matrix, layers < 1, lam or a start that is not
            positive, a weight of another shape, a number of values that is not K.

    >>> net = LISTA(torch.randn(25, 50), layers=16)
    >>> sum(p.numel() for p in net.parameters())  # 50 * 25 + 50 * 50 + 16
    3766
    >>> net(torch.randn(3, 25)).shape
    torch.Size([3, 50])
    """

    def __init__(
        self,
        A: Float[Tensor, "m n"],
        layers: int = 16,
        *,
        weight: Float[Tensor, "_ _"] | None = None,
        lam: float = 0.1,
        step: float | None = None,
        thresholds: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        usual = _step(A, layers, lam)
        t = usual if step is None else step
        W = _same_shape(A if weight is None else weight, A)
        m, n = A.shape
        # Stored times sqrt(m): entries of about 1, so that one learning rate suits all.
        self.B = nn.Parameter(t * W.mT * math.sqrt(m))
        self.Q = nn.Parameter((torch.eye(n).to(A) - t * W.mT @ A) * math.sqrt(m))
        first = usual * lam if thresholds is None else thresholds
        self.log_thresholds = nn.Parameter(_each("thresholds", first, layers, A).log())

    @property
    def thresholds(self) -> Float[Tensor, " K"]:
        """T_k, positive because their logarithms are learned."""
        return self.log_thresholds.exp()

    def codes(self, y: Float[Tensor, "*batch m"]) -> list[Float[Tensor, "*batch n"]]:
        """The code after each layer."""
        m = self.B.shape[1]
        _check(y, m)
        scale = 1 / math.sqrt(m)
        return lista(y, scale * self.B, scale * self.Q, self.thresholds)

    def forward(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self.codes(y)[-1]


class CoupledLISTA(nn.Module):
    """LISTA-CP and its kin: x <- S_{T_k}(x + s_k W_k^T (y - A x)), steps and thresholds learned.

    It starts as ISTA with step 1/||A||^2, unless `weight`, `steps` and `thresholds` say otherwise.

    Args:
        A: (m, n), the matrix that observations come from; not learned.
        layers: K.
        learn: "shared", one W for all layers (LISTA-CP tied, TiLISTA); "each", one W_k for each
            layer (LISTA-CP as published); "fixed", none (ALISTA, with `weight=analytic_weight(A)`).
        weight: (m, n), where W begins; None: A.
        lam: weight of the l1 norm in the ISTA that it starts from.
        steps: first s_k, one number or one for each layer; None: 1/||A||^2.
        thresholds: first T_k, likewise; None: lam/||A||^2.
        percents: of support selection for each layer, as `selection` gives them; None: none.

    Raises:
        ValueError: as `LISTA`; an unknown `learn`, percentages outside 0 to 100.

    >>> A = torch.randn(25, 50)
    >>> [sum(p.numel() for p in CoupledLISTA(A, 4, learn=how).parameters())
    ...  for how in ("fixed", "shared", "each")]
    [8, 1258, 5008]
    """

    def __init__(
        self,
        A: Float[Tensor, "m n"],
        layers: int = 16,
        *,
        learn: str = "shared",
        weight: Float[Tensor, "_ _"] | None = None,
        lam: float = 0.1,
        steps: float | Sequence[float] | None = None,
        thresholds: float | Sequence[float] | None = None,
        percents: Percents | None = None,
    ) -> None:
        super().__init__()
        t = _step(A, layers, lam)
        if learn not in WEIGHTS:
            raise ValueError(f"learn = {learn!r}: allowed are {', '.join(map(repr, WEIGHTS))}")
        if percents is not None and len(percents) != layers:
            raise ValueError(f"{len(percents)} percents: expected {layers}, one a layer")
        if percents is not None and not all(0 <= p <= 100 for p in percents):
            raise ValueError(f"percents = {list(percents)}: expected 0 to 100")
        self.percents = percents
        self.register_buffer("A", A.clone(), persistent=False)
        W = _same_shape(A if weight is None else weight, A)
        W = W * math.sqrt(len(A))  # entries of about 1, so that one learning rate suits all
        if learn == "fixed":
            self.register_buffer("weight", W, persistent=False)
        else:
            self.weight = nn.Parameter(W.repeat(layers, 1, 1) if learn == "each" else W)
        self.steps = nn.Parameter(_each("steps", t if steps is None else steps, layers, A))
        first = t * lam if thresholds is None else thresholds
        self.log_thresholds = nn.Parameter(_each("thresholds", first, layers, A).log())

    @property
    def thresholds(self) -> Float[Tensor, " K"]:
        """T_k, positive because their logarithms are learned."""
        return self.log_thresholds.exp()

    def codes(self, y: Float[Tensor, "*batch m"]) -> list[Float[Tensor, "*batch n"]]:
        """The code after each layer."""
        m = len(self.A)
        _check(y, m)
        W = self.weight / math.sqrt(m)
        return coupled_lista(y, self.A, W, self.steps, self.thresholds, self.percents)

    def forward(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self.codes(y)[-1]


class StepLISTA(nn.Module):
    """ISTA with learned steps, x <- S_{s_k lam}(x - s_k A^T (A x - y)), for one lasso.

    Its loss is the objective 1/2 ||y - A x||^2 + lam ||x||_1 itself, so that no true code is
    needed. It starts as ISTA with step 1/||A||^2.

    Args:
        A: (m, n).
        layers: K.
        lam: of the lasso.

    Raises:
        ValueError: as `LISTA`.

    Reference: P. Ablin, T. Moreau, M. Massias, A. Gramfort, Learning step sizes for unfolded
    sparse coding, NeurIPS 2019.

    >>> sum(p.numel() for p in StepLISTA(torch.eye(3), layers=5).parameters())
    5
    """

    def __init__(self, A: Float[Tensor, "m n"], layers: int = 16, *, lam: float = 0.1) -> None:
        super().__init__()
        self.lam = lam
        self.log_steps = nn.Parameter(A.new_full((layers,), _step(A, layers, lam)).log())
        self.register_buffer("A", A.clone(), persistent=False)

    @property
    def steps(self) -> Float[Tensor, " K"]:
        """s_k, positive because their logarithms are learned."""
        return self.log_steps.exp()

    def codes(self, y: Float[Tensor, "*batch m"]) -> list[Float[Tensor, "*batch n"]]:
        """The code after each layer."""
        _check(y, len(self.A))
        return coupled_lista(y, self.A, self.A, self.steps, self.lam * self.steps)

    def forward(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self.codes(y)[-1]


def _step(A: Tensor, layers: int, lam: float) -> float:
    """1/||A||^2, after a check of what every network is given."""
    if A.ndim != 2 or not A.is_floating_point() or not bool(A.isfinite().all()):
        raise ValueError(f"A of shape {tuple(A.shape)}: expected a finite matrix (m, n)")
    if layers < 1:
        raise ValueError(f"layers = {layers}: expected at least 1")
    if not 0 < lam < math.inf:
        raise ValueError(f"lam = {lam}: expected above 0 and finite")
    norm = torch.linalg.matrix_norm(A, 2).item()
    if norm == 0:
        raise ValueError("A is zero: there is nothing to invert")
    return 1 / norm**2


def _same_shape(W: Tensor, A: Tensor) -> Tensor:
    if W.shape != A.shape:
        raise ValueError(f"weight of shape {tuple(W.shape)}: expected that of A, {tuple(A.shape)}")
    return W


def _each(name: str, value: float | Sequence[float], layers: int, A: Tensor) -> Tensor:
    """One positive value for each layer."""
    values = list(value) if isinstance(value, Sequence) else [value] * layers
    if len(values) != layers or not all(0 < v < math.inf for v in values):
        raise ValueError(f"{name} = {value}: expected one positive number, or {layers} of them")
    return A.new_tensor(values)


def _check(y: Tensor, m: int) -> None:
    if y.ndim < 1 or y.shape[-1] != m:
        raise ValueError(f"y of shape {tuple(y.shape)}: expected (*batch, {m})")
