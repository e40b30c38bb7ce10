"""Self-attention within windows, every other block with the windows moved by half their size."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad


class WindowBlock(nn.Module):
    """Two residual steps on maps, x + a Attention(N(x)) and then x + b MLP(N(x)).

    Attention: the `window` x `window` positions of a window exchange their values,

        softmax(Q K^T / sqrt(d) + bias) V    for each of `heads` groups of d = maps / heads,

    with a learned bias for each difference of two positions. N takes the mean over the maps away
    at each position and divides by sqrt(variance + eps). With eps = 0, as usual, N is not
    continuous where all maps are nearly equal: most positions of a sparse code are.

    Args:
        maps: channels, a multiple of heads.
        heads, window: of the attention.
        moved: begin the windows half a window earlier.
        eps: of N; a value below it counts as small.
        gain: a and b, learned for each map, at the start.

    >>> WindowBlock(8, heads=2, window=4)(torch.rand(1, 8, 10, 7)).shape
    torch.Size([1, 8, 10, 7])

    Reference: Z. Liu et al., Swin Transformer, ICCV 2021.
    """

    def __init__(
        self,
        maps: int,
        *,
        heads: int = 4,
        window: int = 8,
        moved: bool = False,
        eps: float = 1.0,
        gain: float = 0.02,
    ) -> None:
        super().__init__()
        if maps % heads:
            raise ValueError(f"{maps} maps cannot be shared by {heads} heads")
        self.heads, self.window, self.moved, self.eps = heads, window, moved, eps
        self.qkv = nn.Linear(maps, 3 * maps)
        self.out = nn.Linear(maps, maps)
        self.mlp = nn.Sequential(nn.Linear(maps, 4 * maps), nn.GELU(), nn.Linear(4 * maps, maps))
        self.bias = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))
        self.gains = nn.Parameter(torch.full((2, maps), gain))
        i = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = i[:, None] - i + window - 1
        self.register_buffer("pairs", offset[..., 0] * (2 * window - 1) + offset[..., 1], False)

    def normal(self, x: Float[Tensor, "... maps"]) -> Float[Tensor, "... maps"]:
        """N."""
        return layer_norm(x, x.shape[-1:], eps=self.eps)

    def attention(
        self, x: Float[Tensor, "n p maps"]
    ) -> tuple[Float[Tensor, "n p maps"], Float[Tensor, "n heads p p"]]:
        """Attention within windows of p = window^2 positions, and its weights."""
        n, p, maps = x.shape
        q, k, v = self.qkv(x).view(n, p, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT + self.bias[:, self.pairs]
        share = scores.softmax(-1)
        return self.out((share @ v).transpose(1, 2).reshape(n, p, maps)), share

    def forward(self, x: Float[Tensor, "b maps h w"]) -> Float[Tensor, "b maps h w"]:
        """Maps of any size; beyond the border they are taken as zero."""
        b, maps, h, w = x.shape
        s, first = self.window, self.window // 2 if self.moved else 0
        x = pad(x, (first, -(w + first) % s, first, -(h + first) % s))
        high, wide = x.shape[2] // s, x.shape[3] // s
        x = x.view(b, maps, high, s, wide, s).permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, maps)
        x = x + self.gains[0] * self.attention(self.normal(x))[0]
        x = x + self.gains[1] * self.mlp(self.normal(x))
        x = x.view(b, high, wide, s, s, maps).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(b, maps, high * s, wide * s)[..., first : first + h, first : first + w]
