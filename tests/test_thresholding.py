"""Shrinkage: each map is the argmin it claims, each threshold minimises what it claims."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from skimage.restoration import denoise_wavelet as skimage_denoise

from tutorial_lib import thresholding
from tutorial_lib.data import add_noise, photograph, photographs
from tutorial_lib.metrics import psnr
from tutorial_lib.thresholding import (
    bayes_threshold,
    denoise_wavelet,
    estimate_sigma,
    firm,
    hard,
    soft,
    sure_threshold,
    visu_threshold,
)
from tutorial_lib.wavelets import dwt, wavedec2

SIGMA = 25 / 255
values = st.floats(-8, 8).map(lambda v: round(v, 3))
thresholds = st.floats(0, 5).map(lambda t: round(t, 3))
shrinks = pytest.mark.parametrize("shrink", ["soft", "hard", "firm"])
transforms = pytest.mark.parametrize("transform", ["decimated", "undecimated", "cycle-spun"])


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def camera():
    """The photograph and its noisy version, float64."""
    x = photograph("camera", size=256).double()
    return x, add_noise(x, SIGMA, seed=0)


# The maps ----------------------------------------------------------------------------------------

GRID = torch.arange(-10_000, 10_001, dtype=torch.float64) / 1000  # holds zero exactly


def minimises(u, v, penalty):
    """u costs no more than any point of the grid: 1/2 (u - v)^2 + penalty(u)."""
    u, v = torch.as_tensor(u, dtype=torch.float64), torch.tensor(v, dtype=torch.float64)
    cost = (u - v) ** 2 / 2 + penalty(u)
    return bool(cost <= ((GRID - v) ** 2 / 2 + penalty(GRID)).min() + 1e-12)


@given(values, thresholds)
def test_soft_is_the_argmin_with_the_absolute_value(v, t):
    assert minimises(soft(torch.tensor(v, dtype=torch.float64), t), v, lambda u: t * u.abs())


@given(values, thresholds)
def test_hard_is_an_argmin_with_a_fee_for_existing(v, t):
    u = hard(torch.tensor(v, dtype=torch.float64), t)
    assert minimises(u, v, lambda u: t**2 / 2 * (u != 0).double())


@given(values, thresholds, st.floats(1.01, 4))
def test_firm_is_the_argmin_with_the_minimax_concave_penalty(v, t, factor):
    low, high = 1 + t, (1 + t) * factor  # high > 1: the objective is convex

    def penalty(u):
        inside = u.abs().clamp(max=high)
        return low * (inside - inside**2 / (2 * high))

    assert minimises(firm(torch.tensor(v, dtype=torch.float64), low, high), v, penalty)


@given(values, thresholds)
def test_odd_symmetry_and_shrinkage(v, t):
    v = torch.tensor(v, dtype=torch.float64)
    for shrunk, mirrored in [
        (soft(v, t), soft(-v, t)),
        (hard(v, t), hard(-v, t)),
        (firm(v, t, 2 * t + 1), firm(-v, t, 2 * t + 1)),
    ]:
        assert torch.equal(shrunk, -mirrored)
        assert shrunk.abs() <= v.abs()
        assert shrunk * v >= 0
        assert v.abs() > t or shrunk == 0


@given(values, values, thresholds)
def test_soft_never_enlarges_a_distance(a, b, t):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert (soft(a, t) - soft(b, t)).abs() <= (a - b).abs() + 1e-15


def test_hard_does_enlarge_distances():
    a, b = torch.tensor(1.01), torch.tensor(0.99)
    assert hard(a, 1.0) - hard(b, 1.0) > 50 * (a - b) / 1.01


def test_firm_is_soft_at_one_end_and_hard_at_the_other():
    v = normal(1000) * 2
    assert torch.allclose(firm(v, 1.0, 1e12), soft(v, 1.0))
    away = v[(v.abs() - 1).abs() > 1e-6]
    assert torch.allclose(firm(away, 1.0, 1 + 1e-9), hard(away, 1.0))
    low = torch.tensor([1.0, 1.0, 2.0]).double()
    edges = torch.tensor([1.0, 2.0, 4.0]).double()  # continuous at both thresholds
    assert torch.allclose(firm(edges, low, 2 * low), torch.tensor([0.0, 2.0, 4.0]).double())


def test_threshold_zero_changes_nothing():
    v = normal(50)
    assert torch.equal(soft(v, 0.0), v)
    assert torch.equal(hard(v, 0.0), v)
    assert torch.equal(firm(v, 0.0, 1.0), v)


def test_gradients():
    v = torch.tensor([-2.6, -1.4, -0.3, 0.4, 1.3, 1.7, 2.9], dtype=torch.float64)
    t = torch.tensor([0.9, 1.0, 1.1, 0.8, 1.0, 1.2, 1.0], dtype=torch.float64)
    v.requires_grad_(), t.requires_grad_()
    assert torch.autograd.gradcheck(soft, (v, t))
    assert torch.autograd.gradcheck(lambda v: hard(v, 1.0), (v,))
    assert torch.autograd.gradcheck(lambda v, t: firm(v, t, 2 * t), (v, t))
    x = normal(1, 8, 8).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: denoise_wavelet(x, sigma=0.3, wavelet="db2", level=1), (x,)
    )


def test_a_threshold_may_be_a_tensor_that_broadcasts():
    v, t = normal(3, 5), torch.tensor([[0.0], [1.0], [2.0]]).double()
    for shrink in (soft, hard, lambda v, t: firm(v, t, t + 1)):
        rows = torch.stack([shrink(row, float(at)) for row, at in zip(v, t, strict=True)])
        assert torch.equal(shrink(v, t), rows)


@pytest.mark.parametrize("shrink", [soft, hard, lambda v, t: firm(v, t, 3.0)])
def test_maps_refuse_a_negative_threshold(shrink):
    for t in (-0.5, math.nan, torch.tensor([0.5, -0.5])):
        with pytest.raises(ValueError, match=r"threshold = .*at least 0"):
            shrink(torch.zeros(2), t)


def test_firm_needs_two_thresholds_in_order():
    for low, high in [(1.0, 1.0), (2.0, 1.0)]:
        with pytest.raises(ValueError, match=rf"low = {low} must be below high = {high}"):
            firm(torch.zeros(2), low, high)


# The noise level ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.01, 0.1, 3.0])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym8"])
def test_sigma_of_white_noise(sigma, wavelet):
    noise = sigma * normal(256, 256, seed=1)
    assert estimate_sigma(noise, wavelet=wavelet) == pytest.approx(sigma, rel=0.03)


def test_sigma_scales_and_ignores_outliers_and_smooth_content():
    noise = 0.1 * normal(128, 128, seed=2)
    sigma = estimate_sigma(noise)
    assert torch.isclose(estimate_sigma(7 * noise), 7 * sigma)
    ramp = torch.linspace(0, 1, 128, dtype=torch.float64)
    assert torch.isclose(estimate_sigma(noise + ramp + ramp[:, None]), sigma, rtol=0.03)
    spikes = noise.clone()
    spikes[::16, ::16] += 5
    assert torch.isclose(estimate_sigma(spikes), sigma, rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_of_a_batch_is_that_of_each_image(dtype):
    x = normal(2, 3, 33, 40, seed=3, dtype=dtype) * torch.tensor([0.1, 1.0, 5.0])[:, None, None]
    x = x.to(dtype)
    batch = estimate_sigma(x)
    assert batch.shape == (2, 3)
    assert batch.dtype == dtype
    for i in range(2):
        for j in range(3):
            assert torch.equal(batch[i, j], estimate_sigma(x[i, j]))


def test_sigma_leaves_out_coefficients_that_are_exactly_zero():
    noise = 0.1 * normal(128, 128, seed=4)
    half = noise.clone()
    half[:, :64] = 0  # a saturated half: 50 % of the Haar coefficients vanish
    assert torch.isclose(
        estimate_sigma(half, wavelet="haar"), estimate_sigma(noise[:, 64:], wavelet="haar")
    )
    assert (dwt(half, "haar", ndim=2)[3] == 0).double().mean() == 0.5


@pytest.mark.parametrize("shape", [(16, 16), (1, 7), (2, 5, 5)])
def test_sigma_of_a_constant_image_is_zero(shape):
    assert torch.equal(estimate_sigma(torch.zeros(shape)), torch.zeros(shape[:-2]))
    assert (estimate_sigma(torch.full(shape, 0.5), wavelet="haar") == 0).all()
    assert (estimate_sigma(torch.full(shape, 0.5)) < 1e-6).all()


# The choice of a threshold -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 2048, 65536])
def test_visu_is_sigma_times_the_root_of_two_log_n(n):
    assert visu_threshold(n, 0.3).item() == pytest.approx(0.3 * math.sqrt(2 * math.log(n)))
    sigma = torch.tensor([0.1, 2.0])
    assert torch.allclose(visu_threshold(n, sigma), sigma * math.sqrt(2 * math.log(n)))


def test_visu_bounds_the_largest_noise_coefficient():
    n = 1024
    largest = normal(2000, n, seed=5).abs().amax(1)
    fooled = (largest > visu_threshold(n, 1.0)).double().mean()
    assert 0.1 < fooled < 1 / math.sqrt(math.pi * math.log(n))


def test_visu_needs_a_coefficient():
    with pytest.raises(ValueError, match="n = 0.*at least one"):
        visu_threshold(0, 1.0)


def sure(v, t, sigma):
    small = v.abs() <= t[..., None]
    return (sigma**2 + v.abs().clamp(max=t[..., None]) ** 2 - 2 * sigma**2 * small).sum(-1)


def test_sure_is_unbiased():
    """The formula of sure_threshold's docstring, averaged over draws, is the mean loss."""
    generator = torch.Generator().manual_seed(6)
    clean, sigma = 2 * normal(64, seed=7), 0.7
    draws = clean + sigma * torch.randn(20_000, 64, generator=generator, dtype=torch.float64)
    for t in (0.3, 0.9, 2.0):
        difference = sure(draws, torch.tensor(t).double(), sigma) - (
            (soft(draws, t) - clean).square().sum(-1)
        )
        assert difference.mean().abs() < 4 * difference.std() / 20_000**0.5


@pytest.mark.parametrize("n", [32, 64, 1000])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 4.0])
def test_sure_threshold_minimises_sure(n, sigma):
    clean = 3 * sigma * normal(n, seed=8)
    v = clean + sigma * normal(n, seed=9)
    t = sure_threshold(v, sigma)
    universal = visu_threshold(n, sigma).item()
    grid = torch.linspace(0, universal, 20_001, dtype=torch.float64)
    best = sure(v, grid, sigma).min()
    assert 0 <= t <= universal + 1e-12
    assert sure(v, t, sigma) <= best + 1e-9 * n * sigma**2


def test_sure_threshold_of_a_loud_band_is_small_and_capped():
    loud = 100 * normal(512, seed=10)
    assert sure_threshold(loud, 1.0) < 1
    mixed = torch.cat([normal(500, seed=11), torch.full((12,), 50.0).double()])  # not sparse enough
    assert sure_threshold(mixed, 1.0) <= visu_threshold(512, 1.0)


def test_sure_threshold_is_universal_for_sparse_bands():
    """mean(d^2) / sigma^2 - 1 <= log2(n)^(3/2) / sqrt(n), on either side of equality."""
    n, sigma = 256, 0.5
    limit = 1 + math.log2(n) ** 1.5 / math.sqrt(n)
    shape = normal(n, seed=12)
    shape = shape / shape.square().mean().sqrt()
    below = sigma * shape * math.sqrt(limit * 0.999)
    above = sigma * shape * math.sqrt(limit * 1.001)
    assert torch.isclose(sure_threshold(below, sigma), visu_threshold(n, sigma).double())
    assert sure_threshold(above, sigma) < 0.9 * visu_threshold(n, sigma)


def test_bayes_threshold_is_scikit_images_rule():
    from skimage.restoration._denoise import _bayes_thresh

    for scale in (0.1, 1.0, 1.5, 20.0):
        band = scale * normal(40, 50, seed=13)
        theirs = _bayes_thresh(band.numpy(), 1.0)
        assert bayes_threshold(band.flatten(), 1.0).item() == pytest.approx(theirs, rel=1e-12)


def test_bayes_threshold_removes_a_band_of_pure_noise():
    band = 0.5 * normal(1000, seed=14)
    assert (soft(band, bayes_threshold(band, 1.0)) == 0).all()
    assert bayes_threshold(1000 * normal(1000), 1.0) < 0.002


@pytest.mark.parametrize("rule", [sure_threshold, bayes_threshold])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_of_a_batch_are_those_of_each_band(rule, dtype):
    band = normal(2, 3, 100, seed=15, dtype=dtype) * 3
    sigma = torch.tensor([[0.5, 1.0, 2.0], [1.0, 1.0, 5.0]], dtype=dtype)
    t = rule(band, sigma)
    assert t.shape == (2, 3)
    assert t.dtype == dtype
    for i in range(2):
        for j in range(3):
            assert torch.isclose(t[i, j], rule(band[i, j], sigma[i, j].item()), rtol=1e-5)


# The denoisers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wavelet", ["haar", "db4", "db8", "sym8"])
@pytest.mark.parametrize("sigma", [SIGMA, None])
def test_bayes_shrink_is_scikit_images(camera, wavelet, sigma):
    x, y = camera
    theirs = skimage_denoise(
        y.numpy(),
        sigma=sigma,
        wavelet=wavelet,
        mode="soft",
        method="BayesShrink",
        wavelet_levels=4,
        rescale_sigma=False,
    )
    ours = denoise_wavelet(y, sigma=sigma, wavelet=wavelet)
    assert np.abs(ours.numpy() - theirs).max() < 1e-10
    single = denoise_wavelet(y.float(), sigma=sigma, wavelet=wavelet).double()
    assert abs(psnr(ours, x) - psnr(torch.from_numpy(theirs), x)) < 0.02
    assert abs(psnr(single, x) - psnr(torch.from_numpy(theirs), x)) < 0.02


@pytest.mark.parametrize("wavelet", ["haar", "db4", "bior4.4", "rbio2.2"])
@pytest.mark.parametrize(("shape", "level"), [((16, 16), 1), ((8, 20), 2), ((24, 40), 3)])
@shrinks
def test_cycle_spinning_is_the_undecimated_transform(wavelet, shape, level, shrink):
    """For a fixed threshold: the mean over all shifts, and the same thing computed once."""
    y = add_noise(normal(2, *shape, seed=16), 1.0, seed=1)
    for threshold in (1.5, "visu"):
        kwargs = {
            "sigma": 0.8,
            "wavelet": wavelet,
            "level": level,
            "threshold": threshold,
            "shrink": shrink,
        }
        spun = denoise_wavelet(y, transform="cycle-spun", **kwargs)
        direct = denoise_wavelet(y, transform="undecimated", **kwargs)
        assert torch.allclose(spun, direct, rtol=0, atol=1e-12)


def test_undecimated_commutes_with_shifts_and_decimated_does_not(camera):
    y = camera[1][:64, :96]
    for transform, equal in [("undecimated", True), ("decimated", False)]:
        options = {
            "sigma": SIGMA,
            "wavelet": "haar",
            "transform": transform,
            "mode": "periodization",
        }
        moved = denoise_wavelet(y.roll((3, 5), (0, 1)), **options).roll((-3, -5), (0, 1))
        assert torch.allclose(moved, denoise_wavelet(y, **options)) is equal


def test_undecimated_haar_on_the_camera(camera):
    x, y = camera
    restored = denoise_wavelet(
        y, sigma=SIGMA, wavelet="haar", threshold=3.0, shrink="hard", transform="undecimated"
    )
    assert psnr(restored, x) >= 29.2


def test_the_ladder():
    """Visu < decimated Bayes < translation-invariant, in the mean over the twelve photographs."""
    x = photographs(size=256)
    y = add_noise(x, SIGMA, seed=0)
    mean = [
        psnr(denoise_wavelet(y, sigma=SIGMA, **options), x).mean().item()
        for options in (
            {"threshold": "visu"},
            {"threshold": "bayes"},
            {"threshold": "bayes", "transform": "undecimated"},
        )
    ]
    assert mean[0] + 3 < mean[1]
    assert mean[1] + 0.3 < mean[2]


def test_every_option_has_an_effect(camera):
    y = camera[1][:64, :64]
    plain = denoise_wavelet(y, sigma=SIGMA)
    for option in (
        {"sigma": 2 * SIGMA},
        {"wavelet": "haar"},
        {"level": 2},
        {"threshold": "visu"},
        {"threshold": "sure"},
        {"threshold": 1.0},
        {"shrink": "hard"},
        {"shrink": "firm"},
        {"transform": "undecimated"},
        {"transform": "cycle-spun"},
        {"mode": "periodization"},
        {"mode": "zero"},
    ):
        other = denoise_wavelet(y, **{"sigma": SIGMA, **option})
        assert (other - plain).abs().max() > 1e-3, option


@transforms
@pytest.mark.parametrize("threshold", ["visu", "sure", "bayes", 2.0])
@pytest.mark.parametrize("sigma", [None, 0.2, torch.tensor([[0.1, 0.2], [0.3, 0.4]])])
def test_a_batch_is_denoised_image_by_image(transform, threshold, sigma):
    y = normal(2, 2, 16, 24, seed=17, dtype=torch.float32)
    options = {"threshold": threshold, "transform": transform, "wavelet": "db2", "level": 2}
    batch = denoise_wavelet(y, sigma=sigma, **options)
    assert batch.shape == y.shape
    for i in range(2):
        for j in range(2):
            level = sigma[i, j].item() if isinstance(sigma, torch.Tensor) else sigma
            one = denoise_wavelet(y[i, j], sigma=level, **options)
            assert torch.allclose(batch[i, j], one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (3, 5), (17, 33), (2, 1, 7)])
@pytest.mark.parametrize("transform", ["decimated", "undecimated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_size_and_dtype(shape, transform, dtype):
    y = normal(*shape, seed=18, dtype=dtype)
    for wavelet, threshold in [("haar", "bayes"), ("sym8", "sure"), ("bior4.4", 1.0)]:
        z = denoise_wavelet(y, sigma=0.5, wavelet=wavelet, threshold=threshold, transform=transform)
        assert z.shape == y.shape
        assert z.dtype == dtype
        assert z.isfinite().all()


@transforms
@shrinks
@pytest.mark.parametrize("threshold", ["visu", "sure", "bayes", 3.0])
def test_without_noise_nothing_changes(transform, shrink, threshold):
    """sigma = 0 asks for no change; a threshold of zero keeps everything."""
    x = normal(16, 16, seed=19)
    options = {"transform": transform, "shrink": shrink, "wavelet": "db2", "level": 2}
    same = denoise_wavelet(x, sigma=0.0, threshold=threshold, **options)
    assert torch.allclose(same, x, atol=1e-10)
    assert torch.allclose(denoise_wavelet(x, sigma=1.0, threshold=0.0, **options), x, atol=1e-10)


@transforms
def test_a_huge_threshold_leaves_the_approximation(transform):
    x = normal(16, 16, seed=20)
    flat = denoise_wavelet(
        x, sigma=1.0, threshold=1e6, wavelet="haar", level=4, transform=transform
    )
    if transform == "decimated":  # 16 x 16 is one Haar block of four levels
        assert torch.allclose(flat, x.mean().expand(16, 16))
    assert torch.isclose(flat.mean(), x.mean())


def test_the_threshold_is_a_multiple_of_sigma():
    x = normal(32, 32, seed=21)
    expected = denoise_wavelet(x, sigma=0.2, threshold=3.0)
    assert torch.allclose(denoise_wavelet(x, sigma=0.6, threshold=1.0), expected)
    assert torch.allclose(denoise_wavelet(5 * x, sigma=1.0, threshold=3.0), 5 * expected)


def test_soft_shrinkage_minimises_the_lasso_of_an_orthonormal_basis():
    """W^T S_T(W y) is the argmin of 1/2 ||x - y||^2 + T ||details of W x||_1."""
    y, t = normal(16, 16, seed=22), 0.7
    options = {"wavelet": "db2", "mode": "periodization", "level": 2}

    def objective(x):
        details = wavedec2(x, **options)[1:]
        size = sum(band.abs().sum() for level in details for band in level)
        return (x - y).square().sum() / 2 + t * size

    best = denoise_wavelet(y, sigma=1.0, threshold=t, **options)
    for seed in range(20):
        for scale in (1.0, 0.1, 1e-3):
            assert objective(best + scale * normal(16, 16, seed=seed)) > objective(best)


# Bad input ---------------------------------------------------------------------------------------

GOOD = torch.zeros(16, 16)


@pytest.fixture
def unchecked():
    """The messages that users see: annotations are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": -0.1}, r"sigma = -0\.1.*at least 0"),
        ({"sigma": math.nan}, r"sigma = nan.*at least 0"),
        ({"threshold": -1.0}, r"threshold = -1\.0.*'visu', 'sure', 'bayes' or a number >= 0"),
        ({"threshold": "best"}, r"threshold = 'best'.*'visu', 'sure', 'bayes'"),
        ({"shrink": "harder"}, r"'harder'.*soft, hard, firm"),
        ({"transform": "dct"}, r"'dct'.*decimated, undecimated, cycle-spun"),
        ({"wavelet": "sym80"}, r"unknown wavelet 'sym80'.*haar"),
        ({"mode": "mirror"}, r"'mirror'.*symmetric"),
        ({"level": 0}, r"level = 0: a whole number of at least 1"),
    ],
)
def test_options_are_refused_with_what_is_allowed(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        denoise_wavelet(GOOD, **{"sigma": 0.1, **options})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((16, 16), math.nan), "NaN"),
        (torch.zeros(16, 16, dtype=torch.int64), "dtype torch.int64: a floating-point"),
        (torch.zeros(16), r"\(16,\)"),
        (torch.zeros(0, 16), r"shape \(0, 16\) has an empty axis"),
    ],
)
@pytest.mark.parametrize("function", [denoise_wavelet, estimate_sigma])
def test_images_are_refused(x, message, function, unchecked):
    with pytest.raises(ValueError, match=message):
        function(x)


@pytest.mark.parametrize(
    "options", [{"threshold": "best"}, {"shrink": "harder"}, {"mode": "mirror"}]
)
def test_annotations_refuse_unknown_names_too(options):
    with pytest.raises(TypeCheckError, match=next(iter(options))):
        denoise_wavelet(GOOD, sigma=0.1, **options)
    with pytest.raises(TypeCheckError):
        denoise_wavelet(torch.zeros(16), sigma=0.1)


def test_maps_pass_nan_and_rules_refuse_it():
    hole = torch.tensor([math.nan, 0.5, 3.0])
    for shrunk in (soft(hole, 1.0), hard(hole, 1.0), firm(hole, 1.0, 2.0)):
        assert shrunk.isnan().tolist() == [True, False, False]
    for rule in (sure_threshold, bayes_threshold):
        with pytest.raises(ValueError, match=r"band of shape \(3,\) contains NaN"):
            rule(hole, 1.0)


def test_maps_refuse_integers(unchecked):
    for call in (lambda v: soft(v, 1.0), lambda v: hard(v, 1.0), lambda v: firm(v, 1.0, 2.0)):
        with pytest.raises(ValueError, match="x of dtype torch.int64: a floating-point tensor"):
            call(torch.arange(3))


def test_cycle_spinning_needs_divisible_sides():
    with pytest.raises(ValueError, match=r"4 levels.*divisible by 16.*\(16, 24\).*undecimated"):
        denoise_wavelet(torch.zeros(16, 24), sigma=0.1, transform="cycle-spun")


def test_unknown_keywords_fail(unchecked):
    with pytest.raises(TypeError, match="levels"):
        denoise_wavelet(GOOD, levels=3)


def test_a_sigma_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"sigma of shape \(2,\).*batch \(3,\)"):
        denoise_wavelet(torch.rand(3, 8, 8), sigma=torch.rand(2))


@pytest.mark.parametrize("sigma", [None, 0.1, torch.linspace(0.05, 0.2, 6).view(3, 2)])
def test_groups_of_images_change_nothing(monkeypatch, sigma):
    x = torch.rand(3, 2, 40, 24).movedim(-1, -2).requires_grad_()
    whole = denoise_wavelet(x, sigma=sigma)
    (gradient,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr(thresholding, "GROUP", 2 * 40 * 24)
    grouped = denoise_wavelet(x, sigma=sigma)
    torch.testing.assert_close(grouped, whole, atol=1e-6, rtol=0)
    grouped_gradient = torch.autograd.grad(grouped.square().sum(), x)[0]
    torch.testing.assert_close(grouped_gradient, gradient, atol=1e-5, rtol=0)


def test_an_empty_batch_stays_empty():
    for wavelet in ("haar", "db2"):
        assert denoise_wavelet(torch.rand(0, 16, 16), wavelet=wavelet).shape == (0, 16, 16)


def test_bfloat16_is_denoised():
    y = add_noise(photograph("camera", size=64), SIGMA, seed=0)
    reference, rough = denoise_wavelet(y), denoise_wavelet(y.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - reference).abs().mean() < SIGMA / 4  # three digits only


def test_noise_alone_is_removed_at_every_scale():
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 1e-5):
        band = scale * noise / noise.std(unbiased=False)
        assert bayes_threshold(band, scale) > band.abs().max()


def test_a_negative_sigma_or_an_integer_band_is_refused():
    band = torch.rand(8)
    for rule in (sure_threshold, bayes_threshold):
        with pytest.raises(ValueError, match="at least 0"):
            rule(band, -1.0)
    with pytest.raises(ValueError, match="at least 0"):
        visu_threshold(8, -1.0)
