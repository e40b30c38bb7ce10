"""WINNet and NENet: the published sizes, exact inverses, and what each part is by definition."""

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.data import add_noise, photograph
from tutorial_lib.metrics import psnr
from tutorial_lib.networks.linn import LINN, LiftingNet
from tutorial_lib.networks.winnet import CLISTA, NENet, WINNet, dct_kernels, merge, patches, split
from tutorial_lib.thresholding import denoise_wavelet
from tutorial_lib.training.recipes import nenet, winnet


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shaken(module: torch.nn.Module, *, seed: int = 0) -> torch.nn.Module:
    """The module in float64 with random weights everywhere, also where it starts with zeros."""
    g = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return module


def test_published_sizes():
    assert size(LiftingNet(1, 15)) == size(LiftingNet(15, 1)) == 19_488
    assert size(LINN(15)) == 155_904
    assert size(CLISTA(15)) == 17_536
    assert [size(WINNet(levels=k)) for k in (1, 2, 3)] == [173_440, 346_880, 520_320]
    assert size(NENet()) == 6_560


def test_filters_are_the_folded_dct_and_keep_the_level_of_white_noise():
    kernels = dct_kernels(torch.zeros(1, dtype=torch.float64))
    rows = kernels.reshape(16, 16)
    torch.testing.assert_close(rows @ rows.T, torch.eye(16).double(), atol=1e-14, rtol=0.0)
    torch.testing.assert_close(kernels[0], torch.full((1, 4, 4), 0.25).double())
    # The DCT of the raster scan, not the separable one: ranks as measured on the released weights.
    ranks = torch.linalg.matrix_rank(kernels[:, 0], atol=1e-10).tolist()
    assert ranks == [1 if k % 4 == 0 else 2 for k in range(16)]


@pytest.mark.parametrize("shape", [(4, 4), (5, 9), (24, 17)])
def test_merge_inverts_split(shape):
    x = torch.rand(2, 1, *shape, dtype=torch.float64)
    exact = merge(*split(x, padding="circular"), padding="circular")
    torch.testing.assert_close(exact, x, atol=1e-13, rtol=0.0)
    published = merge(*split(x))
    assert (published - x).abs().max() > 1e-3  # replicate borders are not exact ...
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(published[inside], x[inside], atol=1e-13, rtol=0.0)  # ... inside is


def test_split_is_a_tight_frame():
    x = torch.rand(1, 1, 12, 10, dtype=torch.float64)
    coarse, detail = split(x, padding="circular")
    energy = coarse.square().sum() + detail.square().sum()
    torch.testing.assert_close(energy, 16 * x.square().sum())


def test_a_new_linn_is_the_identity_and_any_linn_is_inverted():
    coarse, detail = split(torch.rand(2, 1, 20, 24, dtype=torch.float64))
    sigma = torch.tensor([0.1, 0.02], dtype=torch.float64).reshape(-1, 1, 1, 1)
    linn = LINN(15).double()
    for was, now in zip((coarse, detail), linn(coarse, detail, sigma), strict=True):
        assert torch.equal(was, now)
    linn = shaken(linn)
    c, d = linn(coarse, detail, sigma)
    assert (c - coarse).abs().max() > 0.1
    for was, now in zip((coarse, detail), linn.inverse(c, d, sigma), strict=True):
        torch.testing.assert_close(now, was, atol=1e-9, rtol=0.0)
    c2, d2 = linn.inverse(c, d, 2 * sigma)  # another sigma does not invert
    assert (d2 - detail).abs().max() > 1e-3


def test_without_noise_the_lifting_is_linear():
    net = shaken(LiftingNet(1, 3))
    a, b = torch.randn(2, 1, 1, 12, 12, dtype=torch.float64)
    zero, some = torch.zeros(1).double(), torch.full((1,), 0.2).double()
    torch.testing.assert_close(net(a + 2 * b, zero), net(a, zero) + 2 * net(b, zero))
    assert (net(a + 2 * b, some) - net(a, some) - 2 * net(b, some)).abs().max() > 1e-3


def test_dilation_spreads_the_taps():
    near, far = LiftingNet(1, 1), LiftingNet(1, 1, dilation=2)
    far.load_state_dict(shaken(near).float().state_dict())
    x = torch.zeros(1, 1, 81, 81)
    x[..., 40, 40] = 1
    zero = torch.zeros(1)
    reach = [int(net(x, zero)[0, 0, 40].abs().gt(0).nonzero().max()) - 40 for net in (near, far)]
    assert reach == [18, 36]  # 37 x 37 pixels, and twice as far
    torch.testing.assert_close(far(x, zero)[..., ::2, ::2], near(x[..., ::2, ::2], zero))


def test_thresholds_grow_linearly_with_sigma_from_zero():
    clista = shaken(CLISTA(3))
    d = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    sigma = torch.tensor(0.1, dtype=torch.float64)
    torch.testing.assert_close(clista(3 * d, 3 * sigma), 3 * clista(d, sigma))  # homogeneous


def test_identity_penalty_is_the_distance_of_s_a_to_the_identity():
    clista = shaken(CLISTA(3, features=7))
    impulses = torch.zeros(3, 3, 9, 9, dtype=torch.float64)
    impulses[range(3), range(3), 4, 4] = 1
    through = F.conv2d(F.conv2d(impulses, clista.analysis, padding=1), clista.synthesis, padding=1)
    torch.testing.assert_close(clista.identity_penalty(), (through - impulses).square().sum())


def test_details_pass_unchanged_where_s_a_is_the_identity_and_sigma_is_zero():
    net = shaken(WINNet(padding="circular"))
    clista = net.shrinkage[0]
    with torch.no_grad():  # orthonormal columns at the centre tap: S A = I
        clista.analysis.zero_()
        clista.analysis[:, :, 1, 1] = torch.linalg.qr(torch.randn(64, 15).double())[0]
        clista.synthesis.copy_(clista.analysis.transpose(0, 1).flip(-1, -2))
    assert clista.identity_penalty() < 1e-20
    y = torch.rand(20, 24, dtype=torch.float64)
    torch.testing.assert_close(net(y, 0.0), y, atol=1e-10, rtol=0.0)
    assert (net(y, 0.1) - y).abs().max() > 1e-3


def test_spectral_norms_are_those_of_the_linear_blocks():
    net = shaken(LiftingNet(2, 1, features=4, blocks=2))
    norms = net.spectral_norms()
    assert norms.shape == (3,)
    torch.testing.assert_close(norms[0], torch.linalg.matrix_norm(net.first.flatten(1), 2))
    # The block's kernel from its answers to impulses, flipped because convolution correlates.
    x = torch.zeros(4, 4, 17, 17, dtype=torch.float64)
    x[range(4), range(4), 8, 8] = 1
    dw, pw = net.depthwise[1], net.pointwise[1]
    y = x + net._block(net._block(x, dw[0], pw[0]), dw[1], pw[1])
    kernel = y[..., 4:13, 4:13].flip(-1, -2).transpose(0, 1).flatten(1)  # (out, in 9 9)
    torch.testing.assert_close(norms[2], torch.linalg.matrix_norm(kernel, 2))


def test_penalty_is_averaged_over_p_and_u():
    linn = shaken(LINN(3, steps=2, features=4, blocks=1))
    nets = [*linn.predict, *linn.update]
    expected = sum(net.spectral_norms().sum() for net in nets) / 4
    torch.testing.assert_close(linn.spectral_penalty(), expected)


def test_each_image_has_its_own_sigma():
    net = shaken(WINNet(levels=2, steps=1))
    y = torch.rand(3, 24, 20, dtype=torch.float64)
    sigma = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    together = net(y, sigma)
    assert together.shape == y.shape and together.dtype == y.dtype
    for image, level, result in zip(y, sigma, together, strict=True):
        torch.testing.assert_close(net(image, level), result, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(net(y[None], 0.1)[0, 1], together[1], atol=1e-12, rtol=0.0)


def test_every_weight_has_a_gradient():
    net = shaken(WINNet(levels=2, steps=2)).float()
    net(torch.rand(2, 24, 24), 0.1).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_nenet_with_equal_weights_is_the_root_of_the_smallest_eigenvalue():
    net = NENet().double()
    with torch.no_grad():
        for kernel in net.kernels:
            kernel.zero_()  # every weight is sigmoid(0) = 1/2
    y = torch.randn(2, 40, 44, dtype=torch.float64)
    p = F.unfold(y[:, None], 8).transpose(1, 2)
    moment = p.transpose(1, 2) @ p / p.shape[1]
    expected = torch.linalg.eigvalsh(moment)[:, 0].sqrt() / (1 - (64 / (33 * 37)) ** 0.5)
    for stride in (1, 2, 3):
        torch.testing.assert_close(net(y, stride=stride), expected)
    assert net(y[0]).shape == ()


@pytest.mark.parametrize("size", [64, 128, 300])
def test_nenet_finds_the_level_of_white_noise_at_any_size(size):
    net = NENet()
    y = 0.1 * torch.randn(8, size, size, generator=torch.Generator().manual_seed(0))
    assert net(y).mean().item() == pytest.approx(0.1, rel=0.02)


def test_patches_are_rows_of_pixels():
    y = torch.arange(130.0).reshape(10, 13)
    p = patches(y, stride=2)
    assert p.shape == (2 * 3, 64)
    assert torch.equal(p[4], y[2:10, 2:10].flatten())
    torch.testing.assert_close(patches(y), F.unfold(y[None, None], 8)[0].T)


def test_weights_are_averaged_before_the_sigmoid_and_hold_between_the_patches():
    net, y = NENet(), torch.rand(2, 40, 33)
    z = patches(y)[:, None]
    for kernel in net.kernels[:-1]:
        z = F.relu(F.conv2d(z, kernel[:, :, None]))
    z = F.conv2d(z, net.kernels[-1][:, :, None]).mean((1, 3)).reshape(2, 33, 26)
    for stride, reach in ((1, 8), (2, 4), (5, 1), (9, 0)):
        w = net.weights(y, stride=stride)
        assert w.shape == z.shape
        grid = z[:, ::stride, ::stride]  # one place of it, by hand
        near = grid[:, max(0, 3 - reach) : 4 + reach, max(0, 2 - reach) : 3 + reach]
        expected = near.mean((1, 2)).sigmoid()
        torch.testing.assert_close(w[:, 3 * stride, 2 * stride], expected)
        assert torch.equal(w[:, stride - 1 :: stride], w[:, : 34 - stride : stride])


@pytest.mark.parametrize("level", [10, 25, 55])
def test_weak_noise_is_not_taken_for_a_flat_patch(level):
    """Weights that follow the noise itself read 52 where there is 55 (on a flat picture)."""
    y = level / 255 * torch.randn(192, 192, generator=torch.Generator().manual_seed(1))
    assert 255 * nenet.trained()(y).item() == pytest.approx(level, rel=0.015)


def test_nenet_prefers_the_patches_it_is_told_to():
    net = NENet().double()
    with torch.no_grad():
        for kernel in net.kernels:
            kernel.fill_(1 / kernel[0].numel())  # means, so that the logit is the mean's ...
        net.kernels[-1].mul_(-3)  # ... -3 times: bright patches get a weight near 0
    y = 0.1 * torch.randn(64, 64, dtype=torch.float64)
    y[:, 32:] = 5 + torch.randn(64, 32, dtype=torch.float64)
    assert net(y).item() == pytest.approx(net(y[:, :32]).item(), rel=0.2)


def test_refusals():
    net, y = WINNet(steps=1), torch.rand(2, 16, 16)
    with pytest.raises(ValueError, match=r"sigma = -0\.5: expected at least 0 and finite"):
        net(y, -0.5)
    with pytest.raises(ValueError, match=r"sigma = nan"):
        net(y, float("nan"))
    with pytest.raises(ValueError, match=r"sigma of shape \(3,\): expected one number, or one per"):
        net(y, torch.rand(3))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 16\): expected \(\*batch, h, w\)"):
        net(y[:, :3], 0.1)
    with pytest.raises(ValueError, match="levels = 0: expected at least 1"):
        WINNet(levels=0)
    with pytest.raises(ValueError, match=r"\(16, 16\) pixels, stride 2: expected at least"):
        NENet()(y)
    with pytest.raises(ValueError, match="stride 0"):
        NENet()(torch.rand(40, 40), stride=0)
    with pytest.raises(ValueError, match="padding = 'mirror': allowed are 'replicate', 'circular'"):
        WINNet(padding="mirror")


def test_shipped_weights_denoise_better_than_wavelets_without_being_told_the_level():
    x = photograph("chelsea", size=128)
    for level in (15, 50):
        y = add_noise(x, level / 255, seed=3)
        cleaned, found = winnet.denoise(y)
        told, _ = winnet.denoise(y, level / 255)
        haar = denoise_wavelet(
            y,
            sigma=level / 255,
            wavelet="haar",
            threshold=3.0,
            shrink="hard",
            transform="undecimated",
        )
        assert abs(255 * found - level) < 2.5
        assert psnr(cleaned, x) > psnr(haar, x) + 0.5
        assert psnr(cleaned, x) == pytest.approx(psnr(told, x).item(), abs=0.25)


def test_shipped_weights_keep_a_clean_picture():
    net = winnet.trained()
    assert net.shrinkage[0].identity_penalty() < 1e-3
    x = photograph("camera", size=96)
    assert psnr(net(x, 0.0)[4:-4, 4:-4], x[4:-4, 4:-4]) > 50
