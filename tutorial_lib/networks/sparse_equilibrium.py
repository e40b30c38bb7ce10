"""A learned convolutional sparse coder, run to its fixed point or for a fixed number of steps."""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, softplus

from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Equilibrium, Solver

from .shrinkage import shrink

TRAINING = Solver(rtol=1e-3, max_steps=60)


class SparseEquilibrium(nn.Module):
    """Denoises by maps z of an image y with z = f(z; y), f one learned step of ISTA,

        f(z; y) = S_T(z - E * (D * z - y)) / (1 + mu),    restored = mean(y) + C * z.

    D and C synthesise an image from size^2 maps, E analyses one, each by filters of size x size
    pixels; T >= 0 has one number for each map, mu >= 0 is one number. At the start the filters are
    the cosines of a DCT, E is the adjoint of D, C = D, ||D|| = 1, and f is a step of ISTA, of
    length one, for 1/2 ||y - D * z||^2 + ||T z||_1 + mu/2 ||z||^2: a contraction with factor
    1 / (1 + mu). Learning unties the three and keeps no such promise. y is taken without its mean.

    Args:
        size: pixels a side of a filter, odd.
        unrolled: number of steps from z = 0; None: to the fixed point.
        mu: at the start, positive.

    >>> SparseEquilibrium(3)(torch.rand(2, 8, 8)).shape
    torch.Size([2, 8, 8])
    """

    def __init__(self, size: int = 5, *, unrolled: int | None = None, mu: float = 0.1) -> None:
        super().__init__()
        cosines = torch.from_numpy(dct(np.eye(size), axis=0, norm="ortho")).float()
        atoms = torch.einsum("ai,bj->abij", cosines, cosines).reshape(-1, 1, size, size)
        self.D, self.E, self.C = (nn.Parameter(atoms.clone()) for _ in range(3))
        self.T = nn.Parameter(torch.full((size**2, 1, 1), -4.0))  # softplus: 0.018
        self.mu = nn.Parameter(torch.tensor(math.log(math.expm1(mu))))  # softplus: mu
        self.unrolled = unrolled

    def filters(self, atoms: Float[Tensor, "maps 1 s s"]) -> Float[Tensor, "maps 1 s s"]:
        """D, E or C as they are convolved with: of norm one, as an operator, at the start."""
        return atoms / atoms.shape[-1]

    def step(
        self, z: Float[Tensor, "b maps h w"], y: Float[Tensor, "b h w"]
    ) -> Float[Tensor, "b maps h w"]:
        """f(z; y), for y without its mean."""
        p = self.D.shape[-1] // 2
        error = conv_transpose2d(z, self.filters(self.D), padding=p) - y[:, None]
        v = z - conv2d(error, self.filters(self.E), padding=p)
        return shrink(v, softplus(self.T)) / (1 + softplus(self.mu))

    def codes(
        self, y: Float[Tensor, "b h w"], *, solver: Solver = TRAINING, gradient: str = "implicit"
    ) -> Equilibrium:
        """The fixed point, or where `unrolled` steps lead.

        Args:
            y: noisy images, in [0, 1].
            solver, gradient: as in `equilibrium`; without effect on an unrolled network.
        """
        y = y - y.mean((1, 2), keepdim=True)
        start = y.new_zeros(len(y), len(self.D), *y.shape[1:])
        if self.unrolled is not None:
            solver = Solver(method="picard", rtol=0.0, max_steps=self.unrolled)
            gradient = "unrolled"
        return equilibrium(lambda z: self.step(z, y), start, solver=solver, gradient=gradient)

    def restore(
        self, z: Float[Tensor, "b maps h w"], y: Float[Tensor, "b h w"]
    ) -> Float[Tensor, "b h w"]:
        """mean(y) + C * z."""
        x = conv_transpose2d(z, self.filters(self.C), padding=self.C.shape[-1] // 2)[:, 0]
        return x + y.mean((1, 2), keepdim=True)

    def forward(self, y: Float[Tensor, "b h w"], **options) -> Float[Tensor, "b h w"]:
        """The restored images; options as in `codes`."""
        return self.restore(self.codes(y, **options).value, y)
