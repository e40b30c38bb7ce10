"""DECSC: a cube as a shared 2-D and an unshared 3-D convolutional sparse code, in equilibrium."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import (
    conv2d,
    conv3d,
    conv_transpose2d,
    conv_transpose3d,
    pad,
    pixel_shuffle,
    pixel_unshuffle,
)

from tutorial_lib.convolutional_shifts import average_shifts, stack_shifts
from tutorial_lib.equilibrium import equilibrium
from tutorial_lib.fixed_points import Equilibrium, Info, Solver
from tutorial_lib.states import Map

from .detail import DetailEnhancement
from .local_threshold import LocalThreshold
from .shrinkage import shrink
from .wavelet_banks import STRIDE, TAPS, shared_bank, unshared_bank
from .window_attention import WindowBlock

SOLVER = Solver(rtol=1e-3, max_steps=50)


class DECSC(nn.Module):
    """Denoises cubes Y = X + N with X = K(S) + D * H, at the fixed point of a learned map.

    K(S): band b is sum_m k_{b,m} * S_m, 2-D maps S shared by all bands. D * H: sum_j d_j * h_j,
    3-D maps h_j with values of their own in each band. The model that is unfolded is

        min over S, H of  1/2 ||Y - K(S) - D * H||^2 + ||T_S S||_1 + phi(S) + ||T_H H||_1 + psi(H)
                          + ridge/2 (||S||^2 + ||H||^2)

    and the map z = (S, H) -> f(z; Y) one sweep of proximal gradient steps,

        S <- Trans(soft(S + E_K (Y - K(S) - D_r * H), T_S) / (1 + ridge))
        H <- Detail(soft(H + E_D (Y - D * H - K_r(S)), T_H) / (1 + ridge))      with the new S

    in which learned modules stand for the proximal maps of phi and psi: Trans, attention in
    windows, and Detail, differences and a gate. At the start E_K = K^T and E_D = D^T, both of norm
    one, K_r = K and D_r = D: without the modules f is block-wise ISTA with steps of length one.
    Learning unties them, and f has no objective any more. X is K_r(S) + D_r * H. The last term,
    that of an elastic net, is there for the solver: D has four times as many atoms as a cube has
    samples, and one cube has many codes, between which the others hardly choose.

    The bands are the eigenimages of `whiten`, whose noise is white and of level one: that is what
    the square in the model asks for. The thresholds T_S, T_H are computed from Y once, before the
    first sweep (`LocalThreshold`): lower where there is more than noise. The codes live on every
    second pixel; filters have 6 x 6 pixels, those of D also 3 bands. They are applied to the four
    phases of the image, as plain convolutions of 3 x 3.

    Args:
        bands: of the cubes.
        maps, volumes: how many maps S_m, h_j.
        blocks, heads, window: of the attention; 0 blocks: none.
        detail: with the detail enhancement.
        shared, unshared: with S, with H.
        ridge: weight of the squares of the codes.
        local: with thresholds of their own at each position (`LocalThreshold`), or one a map.
        unrolled: this many sweeps from S = 0, H = 0, two or more, instead of the fixed point.

    >>> network = DECSC(bands=4, maps=8, volumes=4)
    >>> x, info = network.restore(torch.randn(1, 4, 16, 16))
    >>> x.shape, info.reason  # a solution for each of the four shifts
    (torch.Size([1, 4, 16, 16]), ['converged', 'converged', 'converged', 'converged'])

    Reference: J. Ye, J. Wang, F. Xiong, J. Chen, Y. Qian, DECSC, IEEE Trans. Geoscience and Remote
    Sensing, 2025.
    """

    def __init__(
        self,
        bands: int = 16,
        maps: int = 64,
        volumes: int = 16,
        *,
        blocks: int = 2,
        heads: int = 4,
        window: int = 8,
        detail: bool = True,
        shared: bool = True,
        unshared: bool = True,
        ridge: float = 0.04,
        local: bool = True,
        unrolled: int | None = None,
    ) -> None:
        super().__init__()
        if not shared and not unshared:
            raise ValueError("shared and unshared are both False: no code is left")
        if unrolled is not None and unrolled < 2:
            raise ValueError(f"unrolled = {unrolled}: two sweeps or more")
        if not 0 <= ridge < math.inf:
            raise ValueError(f"ridge = {ridge}: 0 or more")
        self.bands, self.unrolled, self.ridge = bands, unrolled, ridge
        self.shared, self.unshared = shared, unshared
        price = 5.0 if local else 3.0
        if shared:
            K = shared_bank(bands, maps)
            self.E_K, self.K, self.K_r = (nn.Parameter(K.clone()) for _ in range(3))
            self.T_S = LocalThreshold(price, maps, local=local)
            self.trans = nn.Sequential(
                *(
                    WindowBlock(maps, heads=heads, window=window, moved=i % 2 == 1)
                    for i in range(blocks)
                )
            )
        if unshared:
            D = unshared_bank(volumes)
            self.E_D, self.D, self.D_r = (nn.Parameter(D.clone()) for _ in range(3))
            self.T_H = LocalThreshold(2 / 3 * price, volumes, local=local)
            self.detail = DetailEnhancement(volumes) if detail else nn.Identity()

    def thresholds(self, y: Float[Tensor, "b channels h w"]) -> list[Tensor]:
        """T_S, T_H for Y as phases: of each map at each position."""
        T = []
        if self.shared:
            T.append(self.T_S(conv2d(y, self.E_K, padding=TAPS // 2), self.E_K))
        if self.unshared:
            T.append(self.T_H(conv3d(cube_of(y), self.E_D, padding=TAPS // 2), self.E_D))
        return T

    def sweep(
        self, z: tuple[Tensor, ...], y: Float[Tensor, "b channels h w"], T: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """f(z; Y), Y as phases, with thresholds T."""
        new = []
        if self.shared:
            U = volumes_of(z[1], self.D_r) if self.unshared else 0.0
            v = z[0] + conv2d(y - planes(z[0], self.K) - U, self.E_K, padding=TAPS // 2)
            new.append(self.trans(shrink(v, T[0]) / (1 + self.ridge)).float())
        if self.unshared:
            C = planes(new[0], self.K_r) if self.shared else 0.0
            r = cube_of(y - volumes_of(z[-1], self.D) - C)
            v = z[-1] + conv3d(r, self.E_D, padding=TAPS // 2)
            new.append(self.detail(shrink(v, T[-1]) / (1 + self.ridge)).float())
        return tuple(new)

    def problem(self, Y: Float[Tensor, "b bands h w"]) -> tuple[Map, tuple[Tensor, ...]]:
        """The map z -> f(z; Y), and where to begin: one sweep from S = 0, H = 0.

        Args:
            Y: noisy cubes of even height and width.

        Raises:
            ValueError: another number of bands, odd or small sizes, NaN.
        """
        self._check(Y)
        if any(n % STRIDE for n in Y.shape[-2:]):
            raise ValueError(f"{Y.shape[-2]} x {Y.shape[-1]} pixels: even numbers are needed")
        y = pixel_unshuffle(Y, STRIDE)
        b, _, h, w = y.shape
        S = [y.new_zeros(b, len(self.K), h, w)] if self.shared else []
        H = [y.new_zeros(b, len(self.D), self.bands, h, w)] if self.unshared else []

        T = self.thresholds(y)

        def f(z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return self.sweep(z, y, T)

        with torch.set_grad_enabled(self.unrolled is not None and torch.is_grad_enabled()):
            return f, f((*S, *H))

    def solve(
        self,
        Y: Float[Tensor, "b bands h w"],
        *,
        solver: Solver = SOLVER,
        gradient: str = "jfb",
        **options,
    ) -> Equilibrium:
        """The codes of noisy cubes, without the mean over shifts.

        Args:
            Y: as in `problem`.
            solver, gradient, options: as in `equilibrium`; without effect on an unrolled network.
        """
        f, z = self.problem(Y)
        if self.unrolled is None:
            return equilibrium(f, z, solver=solver, gradient=gradient, **options)
        solver = Solver(method="picard", rtol=0.0, max_steps=self.unrolled - 1)
        return equilibrium(f, z, solver=solver, gradient="unrolled")

    def parts(self, z: tuple[Tensor, ...]) -> tuple[Tensor | float, Tensor | float]:
        """What codes stand for: the cubes K_r(S) and D_r * H, (b, bands, h, w); 0 without one."""
        C = pixel_shuffle(planes(z[0], self.K_r), STRIDE) if self.shared else 0.0
        U = pixel_shuffle(volumes_of(z[-1], self.D_r), STRIDE) if self.unshared else 0.0
        return C, U

    def cubes(self, z: tuple[Tensor, ...]) -> Float[Tensor, "b bands h w"]:
        """K_r(S) + D_r * H."""
        C, U = self.parts(z)
        return C + U

    def forward(self, Y: Float[Tensor, "b bands h w"], **options) -> Float[Tensor, "b bands h w"]:
        """Denoised cubes, without the mean over shifts; options as in `solve`."""
        return self.cubes(self.solve(Y, **options).value)

    @torch.no_grad()
    def restore(
        self, Y: Float[Tensor, "b bands h w"], *, solver: Solver = SOLVER
    ) -> tuple[Float[Tensor, "b bands h w"], Info]:
        """Denoised cubes, the mean of the solutions for the four shifts of Y against the codes.

        Args:
            Y: of any size from 8 x 8.
            solver: as in `solve`.

        Returns:
            The cubes; the record of all solutions, cubes within shifts.
        """
        self._check(Y)
        shifted = stack_shifts(Y, STRIDE, boundary="padded")
        h, w = shifted.shape[-2:]
        even = pad(shifted.flatten(0, 1), (0, w % 2, 0, h % 2), mode="replicate")
        z, info = self.solve(even, solver=solver)
        X = self.cubes(z)[..., :h, :w].unflatten(0, shifted.shape[:2])
        return average_shifts(X, STRIDE, Y.shape[-2:], boundary="padded"), info

    def _check(self, Y: Tensor) -> None:
        if Y.shape[1] != self.bands:
            raise ValueError(f"{Y.shape[1]} bands: the network has {self.bands}")
        if min(Y.shape[-2:]) < 8:
            raise ValueError(f"{Y.shape[-2]} x {Y.shape[-1]} pixels: 8 x 8 or more are needed")
        if Y.isnan().any():
            raise ValueError("Y holds NaN")


def planes(S: Float[Tensor, "b maps h w"], K: Tensor) -> Float[Tensor, "b channels h w"]:
    """K(S): the adjoint of the convolution with K."""
    return conv_transpose2d(S, K, padding=TAPS // 2)


def volumes_of(H: Float[Tensor, "b maps n h w"], D: Tensor) -> Float[Tensor, "b channels h w"]:
    """D * H: the adjoint of the convolution with D, bands and phases in one axis."""
    H = H.contiguous(memory_format=torch.channels_last_3d)  # four times faster on a CPU
    return conv_transpose3d(H, D, padding=TAPS // 2).transpose(1, 2).flatten(1, 2)


def cube_of(r: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b phases n h w"]:
    """Bands and phases apart again."""
    r = r.unflatten(1, (-1, STRIDE**2)).transpose(1, 2)
    return r.contiguous(memory_format=torch.channels_last_3d)
