"""Eight affine couplings on 1024 x 64 numbers: a training step, against flow libraries."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutorial_lib.networks.flow import AffineCoupling, Flow, log_prob

from .runner import Case, Entry

N, D, WIDTH, LAYERS = 1024, 64, 128, 8
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def net(c_in: int = D // 2, c_out: int = D) -> nn.Sequential:
    """The same network in every entry."""
    return nn.Sequential(
        nn.Linear(c_in, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, c_out),
    )


def nets() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(net() for _ in range(LAYERS))


def entry(
    loss: Callable[[Tensor], Tensor],
    module: nn.Module,
    call: Callable[[Tensor], tuple[Tensor, Tensor]],
    inverse: Callable[[Tensor], Tensor],
    note: str = "",
) -> Entry:
    """A loss with its gradients; the error is the worse one of inverse and log-determinant."""

    def run() -> None:
        module.zero_grad(set_to_none=True)
        loss(X).backward()

    def error() -> float:
        with torch.no_grad():
            back = (inverse(call(X)[0]) - X).abs().max()
            log_det = call(X[:1])[1][0]
        jacobian = torch.autograd.functional.jacobian(lambda x: call(x[None])[0][0], X[0])
        exact = torch.linalg.slogdet(jacobian.double())[1]
        return max(float(back), float((log_det - exact).abs() / exact.abs()))

    return Entry(run, error, 1e-4, note=note)


def normal(z: Tensor, log_det: Tensor) -> Tensor:
    """Minus the mean log-likelihood, up to a constant."""
    return (z.square().sum(1) / 2 - log_det).mean()


def ours() -> Entry:
    flow = Flow(*(AffineCoupling(f, swap=k % 2 == 1) for k, f in enumerate(nets())))
    return entry(lambda x: -log_prob(flow, x).mean(), flow, flow, flow.inverse)


def bare() -> Entry:
    """The same arithmetic in one loop."""
    functions = nets()

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        log_det = 0.0
        for f in functions:
            s, t = f(a).chunk(2, 1)
            s = 2 * (s / 2).tanh()
            log_det = log_det + s.sum(1)
            a, b = s.exp() * b + t, a
        return torch.cat([a, b], 1), log_det

    def inverse(z: Tensor) -> Tensor:
        a, b = z.chunk(2, 1)
        for f in reversed(functions):
            s, t = f(b).chunk(2, 1)
            a, b = b, (a - t) * (-2 * (s / 2).tanh()).exp()
        return torch.cat([a, b], 1)

    return entry(lambda x: normal(*call(x)), functions, call, inverse)


def zuko() -> Entry:
    from zuko.transforms import (
        ComposedTransform,
        CouplingTransform,
        DependentTransform,
        MonotonicAffineTransform,
    )

    functions, first = nets(), torch.arange(D) < D // 2

    def part(f: nn.Module) -> Callable[[Tensor], DependentTransform]:
        return lambda a: DependentTransform(MonotonicAffineTransform(*f(a).chunk(2, -1)), 1)

    masks = (first, ~first)
    flow = ComposedTransform(
        *(CouplingTransform(part(f), masks[k % 2]) for k, f in enumerate(functions))
    )
    call = flow.call_and_ladj
    note = "another bound of the scale"
    return entry(lambda x: normal(*call(x)), functions, call, lambda z: flow.inv(z), note)


def nflows() -> Entry:
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    torch.manual_seed(0)
    masks = (torch.arange(D) < D // 2, torch.arange(D) >= D // 2)
    couplings = [AffineCouplingTransform(masks[k % 2], _ignoring_context) for k in range(LAYERS)]
    flow = CompositeTransform(couplings)
    note = "another bound of the scale"
    return entry(lambda x: normal(*flow(x)), flow, flow, lambda z: flow.inverse(z)[0], note)


def _ignoring_context(c_in: int, c_out: int) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(c_in, c_out)

        def forward(self, a: Tensor, context: None = None) -> Tensor:
            return self.net(a)

    return Net()


def cases() -> list[Case]:
    """Within 5 % of the bare loop."""
    entries = {"tutorial_lib": ours, "bare loop": bare, "zuko": zuko, "nflows": nflows}
    return [Case(f"loss + gradients, {N}x{D}, {LAYERS} couplings", entries, "bare loop", 1.05)]
