"""LINN: inverses for any weights, Haar and the soft threshold at the start, its penalties."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from tutorial_lib.data import add_noise, photograph
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.linn import (
    LINN,
    UNIT,
    DetailLISTA,
    DetailSoft,
    DnINN,
    LiftingNet,
    LINNTransform,
    keep_largest,
    noise_levels,
    thresholds,
)
from tutorial_lib.thresholding import denoise_wavelet, soft
from tutorial_lib.training.recipes import linn_lista, linn_soft, linn_sparse
from tutorial_lib.wavelets import wavedec2

SMALL = {"features": 4, "blocks": 2}


def disturbed(network, scale=0.1, dtype=torch.float64):
    """The network with weights away from their start, where the output kernels are zero."""
    torch.manual_seed(1)
    network = network.to(dtype)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(scale * torch.randn_like(p))
    return network


def images(*shape, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


# The transform -----------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 2.0])
def test_inverse_is_exact_for_any_weights(levels, sigma):
    transform = disturbed(LINNTransform(levels=levels, steps=3, **SMALL))
    x = images(2, 16, 24)
    coeffs = transform.analysis(x, sigma)
    assert sum(c[0].numel() for c in coeffs) == x[0].numel()  # no redundancy
    error = (transform.synthesis(coeffs, sigma) - x).abs().max()
    assert error < 1e-9 * max(c.abs().max() for c in coeffs)
    haar = LINNTransform(levels=levels).double().analysis(x, sigma)
    assert any((c - h).abs().max() > 0.1 for c, h in zip(coeffs, haar, strict=True))


def test_another_sigma_does_not_invert():
    transform = disturbed(LINNTransform(**SMALL))
    x = images(1, 16, 16)
    assert (transform.synthesis(transform.analysis(x, 0.1), 0.2) - x).abs().max() > 1e-3


def test_starts_as_the_haar_transform():
    x = images(2, 24, 16)
    coarse, *details = LINNTransform(levels=3).double().analysis(x, 0.1)
    haar, *bands = wavedec2(x, "haar", mode="periodization", level=3)
    assert torch.allclose(coarse[:, 0], haar)
    for detail, band in zip(details, bands, strict=True):
        expected = torch.stack([band.vertical, band.horizontal, band.diagonal], 1)
        assert torch.allclose(detail, expected)


def test_is_linear_at_sigma_zero_only():
    transform = disturbed(LINNTransform(**SMALL))
    x, y = images(2, 16, 16)[:, None]

    def bend(sigma):
        def first(z):
            return transform.analysis(z, sigma)[0]

        return (first(2 * x - 3 * y) - 2 * first(x) + 3 * first(y)).abs().max()

    assert bend(0.0) < 1e-9 < 1e-3 < bend(0.5)


@pytest.mark.parametrize("shape", [(1, 10, 8), (1, 8, 6), (1, 0, 8)])
def test_sizes_are_checked(shape):
    with pytest.raises(ValueError, match=f"images of \\({shape[1]}, {shape[2]}\\) pixels.*4"):
        LINNTransform(levels=2).analysis(torch.zeros(shape), 0.1)


def test_at_least_one_level():
    with pytest.raises(ValueError, match="levels = 0"):
        LINNTransform(levels=0)


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (-0.1, "at least 0"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (torch.ones(3), r"\(3,\).*2 images"),
    ],
)
def test_noise_levels_are_checked(sigma, message):
    with pytest.raises(ValueError, match=message):
        noise_levels(sigma, torch.zeros(2, 8, 8))


# What is inside P and U --------------------------------------------------------------------------


def test_lifting_net_starts_at_zero_and_scales_with_its_input():
    net = LiftingNet(1, 3, **SMALL)
    x, sigma = images(2, 1, 9, 7, dtype=torch.float32), torch.tensor(0.1)
    assert not net(x, sigma).any()
    net = disturbed(net)
    assert torch.allclose(net(3 * x.double(), 3 * sigma), 3 * net(x.double(), sigma))


def test_dilation_reaches_further():
    def reach(dilation):
        net = disturbed(LiftingNet(1, 1, features=4, blocks=1, dilation=dilation))
        impulse = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
        impulse[..., 20, 20] = 1
        response = net(impulse, torch.zeros(()))[0, 0]
        return int((response.abs() > 1e-12).nonzero().sub(20).abs().max())

    assert (reach(1), reach(2)) == (6, 12)  # 1 + 2 + 2 + 1 pixels, and twice that


def test_thresholds_are_linear_in_sigma():
    theta = torch.tensor([[-0.1, 0.0, 0.3]])
    t = thresholds(theta, torch.tensor([0.0, UNIT, 2 * UNIT]))
    assert t.shape == (1, 3, 3, 1, 1)
    expected = torch.log1p(torch.exp(20 * theta[0])) / 20
    for image, factor in enumerate([0, 1, 2]):
        assert torch.allclose(t[0, image, :, 0, 0], factor * expected)


def test_spectral_norms_are_those_of_the_composed_kernels():
    net = disturbed(LiftingNet(2, 3, features=4, blocks=1))
    norms = net.spectral_norms()
    assert torch.allclose(norms[0], torch.linalg.matrix_norm(net.first.flatten(1), 2))
    basis = torch.eye(4, dtype=torch.float64)[..., None, None] * torch.zeros(1, 1, 21, 21)
    basis[range(4), range(4), 10, 10] = 1  # an impulse in each channel
    dw, pw = net.depthwise[0], net.pointwise[0]
    response = basis + net._block(net._block(basis, dw[0], pw[0]), dw[1], pw[1])
    kernel = response[:, :, 6:15, 6:15].flip(-1, -2).transpose(0, 1)  # (out, in, 9, 9)
    assert torch.allclose(norms[1], torch.linalg.matrix_norm(kernel.flatten(1), 2))


def test_spectral_penalty_is_the_mean_over_networks():
    linn = disturbed(LINN(3, steps=2, **SMALL))
    sums = [net.spectral_norms().sum() for net in [*linn.predict, *linn.update]]
    assert torch.isclose(linn.spectral_penalty(), sum(sums) / 4)
    linn.spectral_penalty().backward()
    assert all(net.first.grad.any() and net.depthwise.grad.any() for net in linn.predict)


# The denoiser ------------------------------------------------------------------------------------


def test_starts_as_soft_thresholding_in_the_haar_basis():
    y, sigma = images(2, 32, 16), 0.1
    factor = float(thresholds(torch.tensor([[DetailSoft.START * UNIT]]), torch.tensor(UNIT)))
    expected = denoise_wavelet(
        y,
        sigma=sigma,
        wavelet="haar",
        level=2,
        mode="periodization",
        threshold=factor / UNIT,
        shrink="soft",
    )
    assert factor / UNIT == pytest.approx(1.5, abs=1e-3)
    for shrinkage in ("soft", "lista"):
        restored = DnINN(shrinkage=shrinkage, **SMALL).double()(y, sigma)
        assert torch.allclose(restored, expected, atol=1e-6)


def test_lista_with_the_weights_of_ista_is_ista():
    torch.manual_seed(0)
    lista = DetailLISTA(3, features=6, iterations=5).double()
    d, sigma = images(1, 3, 8, 8), torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def synthesis(g):
        return torch.nn.functional.conv2d(g, lista.synthesis, padding=1)

    with torch.no_grad():
        lista.synthesis.copy_(0.1 * torch.randn_like(lista.synthesis))
        step = 1 / lista.synthesis.flatten(1).norm(dim=1).sum() ** 2 / 9  # below 1 / ||S||^2
        lista.analysis.copy_(step * lista.synthesis.transpose(0, 1).flip(-1, -2))
        lista.theta.copy_(torch.log(torch.expm1(20 * 0.05 * step * UNIT)) / 20)
    threshold = thresholds(lista.theta, sigma)[0, 0, 0, 0, 0]
    g, objective = torch.zeros(1, 6, 8, 8, dtype=torch.float64, requires_grad=True), []
    for _ in range(5):
        fit = (d - synthesis(g)).square().sum() / 2
        objective.append((fit + threshold / step * g.abs().sum()).item())
        g = soft(g - step * torch.autograd.grad(fit, g)[0], threshold).detach().requires_grad_()
    assert objective == sorted(objective, reverse=True)
    assert g.any()
    assert torch.allclose(lista(d, sigma), synthesis(g))


@pytest.mark.parametrize("shrinkage", ["soft", "lista"])
def test_each_image_has_its_own_sigma(shrinkage):
    net = disturbed(DnINN(shrinkage=shrinkage, **SMALL))
    y, sigma = images(2, 2, 8, 12), torch.tensor([[0.05, 0.1], [0.2, 0.4]])
    together = net(y, sigma)
    assert together.dtype == torch.float64
    for i in range(2):
        for j in range(2):
            assert torch.allclose(together[i, j], net(y[i, j], float(sigma[i, j])), atol=1e-6)


def test_any_size_is_denoised():
    net = disturbed(DnINN(**SMALL))
    y = images(1, 13, 7)
    padded = torch.nn.functional.pad(y[:, None], (0, 1, 0, 3), mode="replicate")[:, 0]
    assert torch.equal(net(y, 0.1), net(padded, 0.1)[:, :13, :7])


def test_unknown_shrinkage():
    with pytest.raises((ValueError, TypeCheckError), match="shrinkage"):
        DnINN(shrinkage="hard")


@pytest.mark.parametrize("shrinkage", ["soft", "lista"])
def test_every_weight_has_a_gradient(shrinkage):
    net = disturbed(DnINN(shrinkage=shrinkage, **SMALL))
    net(images(1, 16, 16), 0.2).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


# Few details -------------------------------------------------------------------------------------


def test_keep_largest_keeps_as_many_as_asked():
    coeffs = LINNTransform().analysis(images(3, 16, 16).float(), 0.1)
    kept = keep_largest(coeffs, torch.tensor([0.0, 0.1, 0.5]))
    assert torch.equal(kept[0], coeffs[0])
    for image, count in enumerate([0, 26, 128]):
        before = torch.cat([d[image].flatten() for d in coeffs[1:]]).abs().detach()
        after = torch.cat([d[image].flatten() for d in kept[1:]]).abs().detach()
        assert int(after.count_nonzero()) == count
        assert after.sum() == pytest.approx(before.topk(count).values.sum().item())


def test_keep_largest_keeps_everything():
    coeffs = LINNTransform().analysis(images(1, 8, 8).float(), 0.1)
    for kept, before in zip(keep_largest(coeffs, 1.0), coeffs, strict=True):
        assert torch.equal(kept, before)


# The recipe --------------------------------------------------------------------------------------

SIZES = {"size": 16, "batch_size": 2, "pictures": 1, "bundled": True}


@pytest.mark.parametrize("module", [linn_soft, linn_lista, linn_sparse])
def test_batches_depend_on_the_sample_number(module):
    recipe = module.recipe(**SIZES)
    together = recipe.batch(torch.tensor([3, 8]))
    alone = recipe.batch(torch.tensor([8]))
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[1:], b)
    assert not torch.equal(together[0][0], together[0][1])


def test_noise_of_the_recipe():
    x, y = linn_soft.recipe(**SIZES | {"size": 64}).batch(torch.arange(8))
    assert (y - x).std() == pytest.approx(25 / 255, rel=0.02)


def test_denoising_loss_is_in_units_of_the_noise():
    class Untouched(torch.nn.Module):
        def forward(self, y, sigma):
            return y

    recipe = linn_soft.recipe(**SIZES)
    batch = recipe.batch(torch.arange(4))
    noise = recipe.loss(Untouched(), batch, 0)
    assert noise == pytest.approx(1, rel=0.2)
    assert recipe.loss(recipe.network(), batch, 0) < 0.7 * noise


def test_sparse_loss_falls_with_the_number_of_details():
    recipe = linn_sparse.recipe(**SIZES)
    x, fraction = recipe.batch(torch.arange(2))
    assert ((fraction >= 0.02) & (fraction <= 0.2)).all()
    losses = [recipe.loss(recipe.network(), (x, torch.full((2,), f)), 0) for f in (0.02, 0.2)]
    assert losses[1] < losses[0] - 3


@pytest.mark.parametrize("module", [linn_soft, linn_lista])
def test_shipped_denoisers_gain_eight_decibels(module):
    x = photograph("camera")[:97, 100:203]
    restored, level = module.denoise(add_noise(x, linn_soft.SIGMA), linn_soft.SIGMA)
    assert level == linn_soft.SIGMA
    assert restored.shape == x.shape
    assert psnr(restored, x) > 28
