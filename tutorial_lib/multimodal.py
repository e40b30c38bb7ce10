r"""Joint dictionaries of three modalities: one for each, and links that predict a code from two.

Signals and codes are rows, dictionaries D (n, k) have atoms as columns. For X (N, p), a target in
low quality, Y (N, q), its guide, and Z (N, r), the target, with codes G and links W, `learn_joint`
minimises

.. math::
    F = \tfrac12\|X-G_xD_x^\top\|_F^2+\tfrac12\|Y-G_yD_y^\top\|_F^2+\tfrac12\|Z-G_zD_z^\top\|_F^2
    +\nu_x\|G_x\|_1+\nu_y\|G_y\|_1+\nu_z\|G_z\|_1 \\
    +\mu_x\|W_x\|_F^2+\mu_y\|W_y\|_F^2+\alpha\|G_z-G_xW_x^\top-G_yW_y^\top\|_F^2

with atoms of length at most 1. The last three squares have no 1/2. No update ever raises F.

Reference: X. Deng, P. L. Dragotti, Deep coupled ISTA network for multi-modal image
super-resolution, IEEE Trans. Image Processing, 2020.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .dictionary import learn_dictionary
from .prox import _check_values, prox_l1
from .sparse_coding import lasso, omp

BLOCKS = ("G_x", "G_y", "G_z", "D_x", "D_y", "D_z", "W")  # the order of a round

Three = tuple[float | int, float | int, float | int]
Two = tuple[float | int, float | int]
Codes = tuple[Float[Tensor, "N k"], Float[Tensor, "N k"], Float[Tensor, "N k"]]


class JointModel(NamedTuple):
    """Three dictionaries with atoms as columns, and the links c = S(W_x a + W_y b) of their codes.

    Args:
        D_x, D_y, D_z: (p, k), (q, k), (r, k), columns of length at most 1.
        W_x, W_y: (k, k). Rows of codes are multiplied by their transposes.
    """

    D_x: Float[Tensor, "p k"]
    D_y: Float[Tensor, "q k"]
    D_z: Float[Tensor, "r k"]
    W_x: Float[Tensor, "k k"]
    W_y: Float[Tensor, "k k"]


class JointResult(NamedTuple):
    """What `learn_joint` returns.

    Args:
        model: the last `JointModel`.
        codes: G_x, G_y, G_z, each (N, k).
        history: (7 rounds + 1), float64: F at the start and after each update, in the order of
            `BLOCKS`.
    """

    model: JointModel
    codes: Codes
    history: Float[Tensor, " updates"]


# The objective -----------------------------------------------------------------------------------


def joint_terms(
    signals: tuple[Float[Tensor, "N _n"], ...],
    codes: Codes,
    model: JointModel,
    *,
    nu: Three,
    mu: Two,
    alpha: float | int,
) -> dict[str, Float[Tensor, ""]]:
    """The terms of F, weights included, summed to "fit", "sparsity", "link" and "ridge".

    Args:
        signals: X (N, p), Y (N, q), Z (N, r).
        codes, model: as in `JointResult`.
        nu: nu_x, nu_y, nu_z. mu: mu_x, mu_y. alpha: as in F.

    >>> model = JointModel(*[torch.eye(2)] * 5)
    >>> G = torch.ones(1, 2)
    >>> terms = joint_terms((G, G, G), (G, G, G), model, nu=(1, 1, 1), mu=(1, 1), alpha=3.0)
    >>> [float(v) for v in terms.values()]
    [0.0, 6.0, 6.0, 4.0]
    """
    G_x, G_y, G_z = codes
    gap = G_z - G_x @ model.W_x.mT - G_y @ model.W_y.mT
    fits = [
        (v - G @ D.mT).square().sum() for v, G, D in zip(signals, codes, model[:3], strict=True)
    ]
    return {
        "fit": sum(fits) / 2,
        "sparsity": sum(weight * G.abs().sum() for weight, G in zip(nu, codes, strict=True)),
        "link": alpha * gap.square().sum(),
        "ridge": mu[0] * model.W_x.square().sum() + mu[1] * model.W_y.square().sum(),
    }


# The three kinds of updates ----------------------------------------------------------------------


def update_codes(
    codes: Float[Tensor, "N k"],
    gram: Float[Tensor, "k k"],
    b: Float[Tensor, "N k"],
    nu: float | int,
    *,
    lipschitz: float,
    steps: int,
) -> Float[Tensor, "N k"]:
    """argmin_G 1/2 tr(G gram G^T) - tr(G b^T) + nu ||G||_1, by steps of monotone FISTA.

    The three blocks of codes are of this form: for G_x, gram = D_x^T D_x + 2 alpha W_x^T W_x and
    b = X D_x + 2 alpha (G_z - G_y W_y^T) W_x, and for G_z, gram = D_z^T D_z + 2 alpha I and
    b = Z D_z + 2 alpha (G_x W_x^T + G_y W_y^T). A row never keeps a step that raises its objective.

    Args:
        codes: where to start.
        gram: symmetric, positive semidefinite.
        lipschitz: at least ||gram||: ||D_x||^2 + 2 alpha ||W_x||^2, or ||D_z||^2 + 2 alpha.
        steps: number of steps.

    Reference: A. Beck, M. Teboulle, Fast gradient-based algorithms for constrained total variation
    image denoising and deblurring problems, IEEE Trans. Image Processing, 2009.

    >>> b = torch.tensor([[3.0, 0.5]])
    >>> update_codes(torch.zeros(1, 2), torch.eye(2), b, 1.0, lipschitz=1.0, steps=1)
    tensor([[2., 0.]])
    """

    def value(G: Tensor, G_gram: Tensor) -> Tensor:  # of each row
        return ((G_gram / 2 - b) * G).sum(1, keepdim=True) + nu * G.abs().sum(1, keepdim=True)

    a, a_gram = codes, codes @ gram
    ahead, ahead_gram, t, best = a, a_gram, 1.0, value(a, a_gram)
    for _ in range(steps):
        v = prox_l1(ahead - (ahead_gram - b) / lipschitz, nu / lipschitz)
        v_gram = v @ gram
        reached = value(v, v_gram)
        better = reached <= best
        old, old_gram = a, a_gram
        a, a_gram = torch.where(better, v, a), torch.where(better, v_gram, a_gram)
        best = torch.where(better, reached, best)
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        pull, push = t / t_new, (t - 1) / t_new
        ahead = a + pull * (v - a) + push * (a - old)
        ahead_gram = a_gram + pull * (v_gram - a_gram) + push * (a_gram - old_gram)
        t = t_new
    return a


def update_dictionary(
    dictionary: Float[Tensor, "n k"],
    signals: Float[Tensor, "N n"],
    codes: Float[Tensor, "N k"],
) -> Float[Tensor, "n k"]:
    """One sweep towards argmin_D 1/2 ||X - G D^T||_F^2 with ||d_j|| <= 1, atom after atom.

    In d_j alone it is a multiple of 1/2 ||d_j - u||^2, u = d_j + (X - G D^T)^T g_j / ||g_j||^2: the
    exact minimiser is u, scaled to length 1 if it is longer. An atom without codes is kept.

    Reference: J. Mairal, F. Bach, J. Ponce, G. Sapiro, Online learning for matrix factorization
    and sparse coding, J. Machine Learning Research, 2010, algorithm 2.

    >>> codes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> update_dictionary(torch.eye(2), torch.tensor([[0.5, 0.5], [3.0, 4.0]]), codes)
    tensor([[0.5000, 0.6000],
            [0.5000, 0.8000]])
    """
    gram, cross = codes.mT @ codes, signals.mT @ codes
    atoms = dictionary.mT.contiguous()  # rows
    for j in range(len(atoms)):
        if gram[j, j] > 0:
            u = atoms[j] + (cross[:, j] - gram[j] @ atoms) / gram[j, j]
            atoms[j] = u / torch.linalg.vector_norm(u).clamp(min=1)
    return atoms.mT.contiguous()


def update_links(
    codes: Codes, *, mu: Two, alpha: float | int
) -> tuple[Float[Tensor, "k k"], Float[Tensor, "k k"]]:
    """argmin_W alpha ||G_z - G_x W_x^T - G_y W_y^T||_F^2 + mu_x ||W_x||_F^2 + mu_y ||W_y||_F^2.

    A ridge regression: with columns in the place of rows and G = [G_x; G_y],
    [W_x W_y] = G_z G^T (G G^T + diag(mu) / alpha)^-1.

    >>> G = torch.eye(2)
    >>> update_links((G, G, 3 * G), mu=(1.0, 1.0), alpha=1.0)[0]
    tensor([[1., 0.],
            [0., 1.]])
    """
    k = codes[0].shape[1]
    both = torch.cat(codes[:2], 1).double()
    weights = both.new_tensor([mu[0]] * k + [mu[1]] * k)
    system = both.mT @ both + torch.diag(weights / alpha)
    links = torch.linalg.solve(system, both.mT @ codes[2].double()).mT.to(codes[2])
    return links[:, :k].contiguous(), links[:, k:].contiguous()


# Learning ----------------------------------------------------------------------------------------


def start_joint(
    x: Float[Tensor, "N p"],
    y: Float[Tensor, "N q"],
    z: Float[Tensor, "N r"],
    *,
    atoms: int,
    n_nonzero_coefs: tuple[int, int, int],
    steps: int,
    restarts: int = 1,
    seed: int = 0,
) -> JointModel:
    """A start for `learn_joint`: dictionaries by K-SVD, links by a weak ridge.

    K-SVD of x and of y begins with randomly chosen signals. That of z begins with what atoms of x
    and y leave in z: the columns of the regression of z on both codes, the strongest first and no
    two of them with a cosine above 0.9, and random signals where these are too few.

    Args:
        atoms: k, of each dictionary.
        n_nonzero_coefs: of the codes of x, y and z, computed by `omp`.
        steps: of K-SVD, with `replace_atoms` between them.
        restarts: for x and y K-SVD begins this often, and the best dictionary is kept.
        seed: of the choice.

    Returns:
        `JointModel`; the links predict the codes of `omp`, with mu = alpha = 1.

    Raises:
        ValueError: as `learn_dictionary`; fewer than `atoms` signals that are not zero;
            restarts < 1.
    """
    _check_signals((x, y, z), atoms)
    if restarts < 1:
        raise ValueError(f"restarts = {restarts}: at least 1 is needed")
    dictionaries, codes = [], []
    for v, s in zip((x, y, z), n_nonzero_coefs, strict=True):
        firsts = [_some(v, atoms, seed + i) for i in range(restarts)]
        if len(codes) == 2:
            firsts = [_traces(torch.cat(codes, 1), z, firsts[0])]
        runs = [learn_dictionary(v, D, n_nonzero_coefs=s, steps=steps) for D in firsts]
        D = min(runs, key=lambda run: run.history[-1].item()).dictionary
        dictionaries.append(D)
        codes.append(omp(v, D, n_nonzero_coefs=s))
    return JointModel(*dictionaries, *update_links(tuple(codes), mu=(1.0, 1.0), alpha=1.0))


def learn_joint(
    x: Float[Tensor, "N p"],
    y: Float[Tensor, "N q"],
    z: Float[Tensor, "N r"],
    *,
    atoms: int,
    nu: Three,
    mu: Two,
    alpha: float | int,
    rounds: int,
    steps: int = 20,
    start: JointModel | JointResult | None = None,
    seed: int = 0,
) -> JointResult:
    """Minimise F (head of this page) by rounds over its seven blocks.

    A round updates G_x, G_y, G_z by `steps` of monotone FISTA each, D_x, D_y, D_z by one sweep, and
    both links at once. F never rises; it need not end in a global minimum.

    Args:
        x, y, z: N signals of each kind, row i of all three of one place; float32 or float64.
        atoms: k, of each dictionary.
        nu, mu, alpha: the weights of F, nonnegative, positive, positive.
        rounds: at least 1.
        steps: of each update of codes, at least 1.
        start: a model, whose first codes are those of the `lasso`, each modality for itself; a
            result, to go on from with its codes; None takes randomly chosen signals as atoms.
        seed: of that choice.

    Returns:
        `JointResult`.

    Raises:
        ValueError: weights, sizes or shapes that do not fit; fewer than `atoms` signals that are
            not zero, without a start.

    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> weights = {"nu": (0.1, 0.1, 0.1), "mu": (1.0, 1.0), "alpha": 1.0}
    >>> history = learn_joint(x, x, x, atoms=6, rounds=2, **weights).history
    >>> len(history), bool((history.diff() < 0).all())
    (15, True)
    """
    signals = (x, y, z)
    _check_signals(signals, atoms)
    _check_weights(nu, mu, alpha, rounds, steps)
    codes = None
    if isinstance(start, JointResult):
        start, codes = start.model, start.codes
    elif start is None:
        D = [_some(v, atoms, seed) for v in signals]
        start = JointModel(*D, *[x.new_zeros(atoms, atoms)] * 2)
    _check_model(start, signals, atoms)
    if codes is None:
        codes = tuple(_first_codes(*args) for args in zip(signals, start[:3], nu, strict=True))
    _check_codes(codes, x, atoms)
    G, D, W = list(codes), list(start[:3]), list(start[3:])
    history = []

    def record() -> None:
        terms = joint_terms(signals, tuple(G), JointModel(*D, *W), nu=nu, mu=mu, alpha=alpha)
        history.append(sum(v.double() for v in terms.values()))

    record()
    for _ in range(rounds):
        for i in (0, 1):
            rest = G[2] - G[1 - i] @ W[1 - i].mT
            gram = D[i].mT @ D[i] + 2 * alpha * W[i].mT @ W[i]
            b = signals[i] @ D[i] + 2 * alpha * rest @ W[i]
            bound = _norm2(D[i]) + 2 * alpha * _norm2(W[i])
            G[i] = update_codes(G[i], gram, b, nu[i], lipschitz=bound, steps=steps)
            record()
        predicted = G[0] @ W[0].mT + G[1] @ W[1].mT
        gram = D[2].mT @ D[2] + 2 * alpha * torch.eye(atoms).to(x)
        b, bound = z @ D[2] + 2 * alpha * predicted, _norm2(D[2]) + 2 * alpha
        G[2] = update_codes(G[2], gram, b, nu[2], lipschitz=bound, steps=steps)
        record()
        for i in range(3):
            D[i] = update_dictionary(D[i], signals[i], G[i])
            record()
        W = list(update_links(tuple(G), mu=mu, alpha=alpha))
        record()
    return JointResult(JointModel(*D, *W), tuple(G), torch.stack(history))


def predict_code(
    model: JointModel,
    a: Float[Tensor, "*batch k"],
    b: Float[Tensor, "*batch k"],
    *,
    threshold: float,
) -> Float[Tensor, "*batch k"]:
    """The code of the target from those of its two partners: c = S(W_x a + W_y b).

    With the threshold nu_z / (2 alpha) it is argmin_c alpha ||c - W_x a - W_y b||^2 + nu_z ||c||_1,
    what F asks of a code of the target when the target itself is not known.

    Args:
        a, b: codes (*batch, k) of x and y, each by `lasso` in D_x and D_y.
        threshold: nonnegative.

    Raises:
        ValueError: codes that do not fit the links; a negative threshold.

    >>> model = JointModel(*[torch.eye(2)] * 5)
    >>> predict_code(model, torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.2]), threshold=0.5)
    tensor([1.5000, 0.0000])
    """
    k = model.W_x.shape[1]
    if a.shape != b.shape or a.ndim < 1 or a.shape[-1] != k:
        raise ValueError(
            f"codes {tuple(a.shape)} and {tuple(b.shape)}: both must be (*batch, {k}) for links "
            f"{tuple(model.W_x.shape)}"
        )
    return prox_l1(a @ model.W_x.mT + b @ model.W_y.mT, threshold)


def _first_codes(signals: Tensor, dictionary: Tensor, nu: float) -> Tensor:
    if nu > 0:
        return lasso(signals, dictionary, nu, rtol=1e-3).codes
    return signals.new_zeros(len(signals), dictionary.shape[1])


def _some(signals: Tensor, atoms: int, seed: int) -> Tensor:
    """Unit atoms (n, atoms): signals chosen at random, none of them zero."""
    length = torch.linalg.vector_norm(signals, dim=1)
    rows = (length > 1e-3 * length.mean()).nonzero()[:, 0]
    if len(rows) < atoms:
        raise ValueError(f"{len(rows)} signals are not zero: at least atoms = {atoms} are needed")
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:atoms]]
    return (signals[chosen] / length[chosen, None]).mT.contiguous()


def _traces(codes: Tensor, signals: Tensor, others: Tensor) -> Tensor:
    """Unit atoms, as many as `others`: what entries of the codes leave in the signals."""
    c = codes.double()
    system = c.mT @ c + 1e-3 * torch.eye(c.shape[1]).to(c)
    traces = torch.linalg.solve(system, c.mT @ signals.double()).to(signals)  # rows
    strength = torch.linalg.vector_norm(traces, dim=1) * torch.linalg.vector_norm(codes, dim=0)
    traces = torch.nn.functional.normalize(traces[strength.argsort(descending=True)], dim=1)
    chosen = traces[:0]
    for atom in torch.cat([traces, others.mT]):
        new = atom.any() and not ((chosen @ atom).abs() > 0.9).any()
        if new and len(chosen) < others.shape[1]:
            chosen = torch.cat([chosen, atom[None]])
    return torch.cat([chosen, others.mT])[: others.shape[1]].mT.contiguous()


def _norm2(matrix: Tensor) -> float:
    """||matrix||^2, and a little more, so that rounding does not make it too small."""
    return torch.linalg.matrix_norm(matrix, 2).item() ** 2 * (1 + 1e-6)


def _check_signals(signals: tuple[Tensor, ...], atoms: int) -> None:
    for name, v in zip("xyz", signals, strict=True):
        _check_values(v, name)
        if v.ndim != 2 or len(v) != len(signals[0]) or v.dtype != signals[0].dtype:
            raise ValueError(
                f"{name} of shape {tuple(v.shape)} and {v.dtype}: (signals, n) is needed, with "
                f"{len(signals[0])} rows of {signals[0].dtype} as x"
            )
    if atoms < 1:
        raise ValueError(f"atoms = {atoms}: at least 1 is needed")


def _check_weights(nu: Three, mu: Two, alpha: float | int, rounds: int, steps: int) -> None:
    if not all(v >= 0 for v in nu) or not all(v > 0 for v in mu) or not alpha > 0:
        raise ValueError(
            f"nu = {nu}, mu = {mu}, alpha = {alpha}: nu must be nonnegative, mu and alpha positive"
        )
    if rounds < 1 or steps < 1:
        raise ValueError(f"rounds = {rounds}, steps = {steps}: both must be at least 1")


def _check_codes(codes: tuple[Tensor, ...], x: Tensor, atoms: int) -> None:
    for name, G in zip("xyz", codes, strict=True):
        if tuple(G.shape) != (len(x), atoms) or G.dtype != x.dtype:
            raise ValueError(
                f"start: G_{name} of shape {tuple(G.shape)} and {G.dtype}: {(len(x), atoms)} and "
                f"{x.dtype} are needed"
            )


def _check_model(model: JointModel, signals: tuple[Tensor, ...], atoms: int) -> None:
    wanted = [(v.shape[1], atoms) for v in signals] + [(atoms, atoms)] * 2
    for name, matrix, shape in zip(JointModel._fields, model, wanted, strict=True):
        if tuple(matrix.shape) != shape or matrix.dtype != signals[0].dtype:
            raise ValueError(
                f"start: {name} of shape {tuple(matrix.shape)} and {matrix.dtype}: {shape} and "
                f"{signals[0].dtype} are needed"
            )
    for name, D in zip("xyz", model[:3], strict=True):
        longest = torch.linalg.vector_norm(D, dim=0).max().item()
        if not longest <= 1 + 1e-5:
            raise ValueError(
                f"start: an atom of D_{name} has length {longest:.4g}, at most 1 is allowed"
            )
