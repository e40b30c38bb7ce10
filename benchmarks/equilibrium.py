"""A deep equilibrium layer, forward and implicit backward: z = tanh(z W + x U), 64 x 256.

Cases at one tolerance for all, and at tolerances that give one error of the gradient.
"""

from functools import partial

import torch

from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Solver, fixed_point

from .runner import Case, Entry

BATCH, N, RTOL, STEPS = 64, 256, 1e-5, 60


def problem(dtype):
    """W of norm 0.9, the input x U, and the loss's weights."""
    g = torch.Generator().manual_seed(0)
    W, U = (torch.randn(N, N, generator=g, dtype=torch.float64) for _ in range(2))
    x, c = (torch.randn(BATCH, N, generator=g, dtype=torch.float64) for _ in range(2))
    W = 0.9 * W / torch.linalg.matrix_norm(W, 2)
    return [u.to(dtype) for u in (W, x @ U / N**0.5, c)]


def exact_gradient():
    W, x, c = problem(torch.float64)
    W.requires_grad_()
    start = torch.zeros_like(x)
    value, _ = equilibrium(lambda z: torch.tanh(z @ W + x), start, rtol=1e-13, max_steps=400)
    (c * value).sum().backward()
    return W.grad


def entry(solve, name, largest):
    """`solve(f, start)` gives the layer; the error is that of the gradient for W."""
    W, x, c = problem(torch.float32)
    W.requires_grad_()
    start, calls = torch.zeros_like(x), []

    def layer(count=False):
        def f(z):
            if count:
                calls.append(1)
            return torch.tanh(z @ W + x)

        return solve(f, start)

    def run():
        W.grad = None
        (c * layer()).sum().backward()

    def error():
        run()
        exact = exact_gradient()
        return float((W.grad - exact).norm() / exact.norm())

    layer(count=True)
    return Entry(run, error, largest, layer, note=f"{name}: {len(calls)} evaluations forward")


def ours(method, rtol=RTOL, largest=2e-5):
    solver = Solver(method=method, rtol=rtol, max_steps=STEPS, memory=3)
    note = f"{method}, memory 3, rtol {rtol:.1e}"
    return entry(lambda f, z: equilibrium(f, z, solver=solver).value, note, largest)


def torchdeq_entry(method, rtol=RTOL, largest=2e-5):
    import torchdeq

    forward = {"f_solver": method, "f_tol": rtol, "f_stop_mode": "rel", "f_max_iter": STEPS}
    backward = {"b_solver": method, "b_tol": rtol, "b_stop_mode": "rel", "b_max_iter": STEPS}
    deq = torchdeq.get_deq(ift=True, **forward, **backward)
    return entry(lambda f, z: deq(f, z)[0][-1], f"{method}, rtol {rtol:.1e}", largest)


def refusal(mistake):
    """A mistake: the error is 1 where a state comes back without a word."""

    def silent():
        try:
            mistake()
        except (TypeError, ValueError, FloatingPointError):
            return 0.0
        return 1.0

    return Entry(silent, silent, 0.5, note="refuses")


def our_mistake(options, f=torch.cos):
    return refusal(lambda: fixed_point(f, torch.ones(1, 1), **options))


def their_mistake(options, f=torch.cos):
    import torchdeq

    return refusal(lambda: torchdeq.get_deq(f_solver="anderson", **options)(f, torch.ones(1, 1)))


def cases():
    entries = {"tutorial_lib": partial(ours, "anderson")}
    entries |= {f"tutorial_lib {m}": partial(ours, m) for m in ("picard", "broyden")}
    for method in ("anderson", "broyden", "fixed_point_iter"):
        entries[f"torchdeq {method}"] = partial(torchdeq_entry, method)
    title = f"tanh(z W + x U), {BATCH} x {N}, ||W|| = 0.9, rtol {RTOL:.0e}, forward + backward"
    found = [Case(title, entries, "torchdeq anderson", 0.5)]
    for largest, mine, theirs in ((4e-6, 4.8e-6, 1e-5), (1.1e-5, 1.4e-5, 3e-5)):
        pair = {
            "tutorial_lib": partial(ours, "anderson", mine, largest),
            "torchdeq anderson": partial(torchdeq_entry, "anderson", theirs, largest),
        }
        title = f"the same, each at its tolerance for a gradient error of {largest:.1e}"
        found.append(Case(title, pair, "torchdeq anderson", 0.5, threads=(1,)))
    broken = {"f": lambda z: z * float("nan")}
    for name, mine, theirs, f in (
        ("a misspelt option", {"tolerence": 1e-3}, {"f_tolerence": 1e-3}, {}),
        ("a negative tolerance", {"rtol": -1.0}, {"f_tol": -1.0}, {}),
        ("a map that returns NaN", {}, {}, broken),
    ):
        pair = {"tutorial_lib": partial(our_mistake, mine, **f)}
        pair["torchdeq"] = partial(their_mistake, theirs, **f)
        found.append(Case(f"refuses {name}", pair, "tutorial_lib", 1.0, threads=(1,)))
    return found
