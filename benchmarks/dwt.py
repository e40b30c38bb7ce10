"""2-D wavelet transform of a batch of colour images, with and without its gradient."""

from functools import partial

import pywt
import torch
from torch.nn.functional import one_hot

from tutorial_lib.wavelets import wavedec2, waverec2

from .runner import Case, Entry

WAVELET, LEVEL = "db4", 3
SIZE = f"8x3x256x256 float32, {WAVELET}, {LEVEL} levels"
X = torch.randn(8, 3, 256, 256, generator=torch.Generator().manual_seed(0))


def bands(coeffs):
    """[cA, (h, v, d), ...] of NumPy arrays or tensors as one float64 matrix, a row an image."""
    flat = [b for c in coeffs for b in (c if isinstance(c, tuple | list) else (c,))]
    return torch.cat([torch.as_tensor(b).flatten(-2).flatten(0, -2) for b in flat], -1).double()


def error(forward, inverse, order, mode, gradient):
    """The worst relative error of coefficients, reconstruction and gradient."""
    options, coeffs = {"wavelet": WAVELET, "mode": mode, "level": LEVEL}, forward(X[:1])
    pairs = [(bands(order(coeffs)), bands(pywt.wavedec2(X[:1].double(), **options)))]
    if inverse:
        pairs.append((torch.as_tensor(inverse(coeffs))[..., :256, :256], X[:1]))
    if gradient:  # at 300 pixels, against rows of PyWavelets' transposed matrix
        pixels = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(1))[:300]
        unit = one_hot(pixels, 64 * 64).view(-1, 1, 64, 64).double()
        rows = bands(pywt.wavedec2(unit, **options))
        x = X[:1, :1, :64, :64].clone().requires_grad_()
        c = torch.randn(1, rows.shape[1], generator=torch.Generator().manual_seed(2)).double()
        (adjoint,) = torch.autograd.grad(bands(order(forward(x))), x, c)
        pairs.append((adjoint.flatten()[pixels], rows @ c[0]))
    return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)


def entry(forward, inverse, mode, work, *, order=lambda coeffs: coeffs, note=""):
    """`order` puts what `forward` gives, in the library's own form, in that of PyWavelets."""
    inverse, gradient = inverse if "inverse" in work else None, "backward" in work

    def record():
        return inverse(forward(X.clone().requires_grad_()))

    def run():
        if gradient:
            return record().square().sum().backward()
        return inverse(forward(X)) if inverse else forward(X)

    check = partial(error, forward, inverse, order, mode, gradient)
    return Entry(run, check, 1e-5, record if gradient else None, note)


def ours(mode, work):
    forward = partial(wavedec2, wavelet=WAVELET, mode=mode, level=LEVEL)
    return entry(forward, partial(waverec2, wavelet=WAVELET, mode=mode), mode, work)


def ptwt(mode, work):
    from ptwt import wavedec2, waverec2

    forward = partial(wavedec2, wavelet=WAVELET, mode=mode, level=LEVEL)
    return entry(forward, partial(waverec2, wavelet=WAVELET), mode, work)


def pytorch_wavelets(mode, work):
    from pytorch_wavelets import DWTForward, DWTInverse

    def order(coeffs):
        return [coeffs[0], *(tuple(level.unbind(2)) for level in reversed(coeffs[1]))]

    forward, inverse = DWTForward(LEVEL, WAVELET, mode), DWTInverse(WAVELET, mode)
    return entry(forward, inverse, mode, work, order=order)


def pywavelets(mode, work):
    forward = partial(pywt.wavedec2, wavelet=WAVELET, mode=mode, level=LEVEL)
    inverse = partial(pywt.waverec2, wavelet=WAVELET, mode=mode)
    return entry(forward, inverse, mode, work, note="no gradient, one thread")


def case(mode, work, target, *peers):
    entries = {"tutorial_lib": partial(ours, mode, work)}
    entries |= {make.__name__: partial(make, mode, work) for make in peers}
    title, peak = f"{work}, {mode}, {SIZE}", mode == "symmetric" and "backward" in work
    return Case(title, entries, peers[0].__name__, target, peak=peak)


def cases():
    work = "forward + inverse + backward"
    return [
        case("symmetric", work, 0.5, ptwt, pytorch_wavelets),
        case("zero", work, 0.5, ptwt, pytorch_wavelets),
        case("periodization", work, 0.5, pytorch_wavelets, ptwt),
        case("symmetric", "forward", 1.0, pywavelets),
        case("symmetric", "forward + inverse", 1.0, pywavelets),
    ]
