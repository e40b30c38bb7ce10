"""Dictionary learning: known answers, descent, a planted dictionary, patches, clear refusals."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutorial_lib.data import add_noise, photograph
from tutorial_lib.dictionary import (
    METHODS,
    average_patches,
    dct_dictionary,
    denoise_dictionary,
    extract_patches,
    ksvd_update,
    learn_dictionary,
    mod_update,
    replace_atoms,
)
from tutorial_lib.metrics import psnr
from tutorial_lib.sparse_coding import omp
from tutorial_lib.thresholding import denoise_wavelet


def approximate(Y, D, codes):
    return ksvd_update(Y, D, codes, exact=False)


UPDATES = {"mod": mod_update, "ksvd": ksvd_update, "ksvd-approximate": approximate}
each_update = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(n, k, *, seed=0, dtype=torch.float64):
    D = randn(n, k, seed=seed, dtype=dtype)
    return D / D.norm(dim=0)


def planted(seed, *, noise=0.0):
    """50 atoms of 20 samples, 1500 signals of three: the experiment of Aharon et al., 2006."""
    g = torch.Generator().manual_seed(seed)
    D = unit(20, 50, seed=seed)
    place = torch.rand(1500, 50, generator=g).argsort(1)[:, :3]
    codes = torch.zeros(1500, 50).double()
    codes = codes.scatter(1, place, randn(1500, 3, seed=seed + 1))
    Y, n = codes @ D.mT, randn(1500, 20, seed=seed + 2)
    return D, codes, Y + noise * n * Y.norm() / n.norm()


def error(Y, D, codes):
    return (Y - codes @ D.mT).square().sum().item()


# Updates -----------------------------------------------------------------------------------------


@each_update
@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
def test_update_never_raises_the_error(update, seed, dtype):
    D, Y = unit(6, 10, seed=seed, dtype=dtype), randn(40, 6, seed=seed + 1, dtype=dtype)
    codes = omp(Y, D, n_nonzero_coefs=2) + 0.1 * randn(40, 10, seed=seed + 2, dtype=dtype) * (
        randn(40, 10, seed=seed + 3) > 1  # not even a least-squares code is needed
    )
    new, better = update(Y, D, codes)
    assert error(Y, new, better) <= error(Y, D, codes) * (1 + 1e-5)
    assert torch.allclose(new.norm(dim=0), torch.ones(10, dtype=dtype), atol=1e-5)
    assert new.dtype == better.dtype == dtype


@each_update
def test_update_lowers_the_error_and_keeps_the_supports(update):
    D, Y = unit(8, 16), randn(200, 8, seed=1)
    codes = omp(Y, D, n_nonzero_coefs=3)
    new, better = update(Y, D, codes)
    assert error(Y, new, better) < 0.9 * error(Y, D, codes)
    assert torch.equal(better != 0, codes != 0)


@each_update
def test_unused_atoms_stay(update):
    D, Y = unit(8, 16), randn(100, 8, seed=1)
    codes = omp(Y, D, n_nonzero_coefs=3)
    codes[:, [2, 7]] = 0
    new, better = update(Y, D, codes)
    assert torch.equal(new[:, [2, 7]], D[:, [2, 7]])
    assert (better[:, [2, 7]] == 0).all()


def test_mod_is_the_least_squares_dictionary():
    D, Y = unit(8, 12), randn(200, 8, seed=1)
    codes = omp(Y, D, n_nonzero_coefs=3)
    new, better = mod_update(Y, D, codes)
    free = torch.linalg.lstsq(codes, Y).solution.mT
    assert torch.allclose(better @ new.mT, codes @ free.mT)
    residual = Y - better @ new.mT
    assert (residual.mT @ better).abs().max() < 1e-9  # the gradient vanishes


def test_one_atom_is_the_leading_singular_pair():
    Y = randn(30, 6)
    D, codes = ksvd_update(Y, unit(6, 1), torch.ones(30, 1).double())
    U, S, Vh = torch.linalg.svd(Y, full_matrices=False)
    assert torch.allclose(codes @ D.mT, S[0] * torch.outer(U[:, 0], Vh[0]))
    d, g = unit(6, 1, seed=1), randn(30, 1, seed=2)
    for _ in range(200):  # the approximation is a power method towards it
        d, g = approximate(Y, d, g)
    assert torch.allclose(g @ d.mT, codes @ D.mT, atol=1e-6)


def test_planted_dictionary_is_a_fixed_point():
    D, codes, Y = planted(0)
    for update in UPDATES.values():
        new, same = update(Y, D, codes)
        assert torch.allclose((new * D).sum(0).abs(), torch.ones(50).double())
        assert torch.allclose(same @ new.mT, Y, atol=1e-9)


def test_replacement():
    D = torch.eye(4).double()
    D[:, 1] = torch.tensor([1.0, 0.01, 0, 0]) / math.hypot(1, 0.01)  # nearly atom 0
    Y = torch.tensor([[5.0, 0, 0, 0], [4.0, 0, 0, 0], [3.0, 0.03, 0, 0], [0, 0, 2.0, 4.0]]).double()
    codes = torch.tensor([[5.0, 0, 0, 0], [4, 0, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0]]).double()
    new = replace_atoms(Y, D, codes)  # 1 is a twin of 0 and used less, 3 is not used
    assert torch.equal(new[:, [0, 2]], D[:, [0, 2]])
    worst = torch.tensor([0.0, 0, 1, 2]).double() / math.sqrt(5)
    assert (new[:, [1, 3]] - worst[:, None]).abs().sum(0).min() < 1e-12
    assert torch.allclose(new.norm(dim=0), torch.ones(4).double())
    unused_only = replace_atoms(Y, D, codes, max_cosine=1.0)
    assert torch.equal(unused_only[:, :3], D[:, :3])
    assert torch.allclose(unused_only[:, 3], worst)
    assert error(Y, unused_only, codes) == error(Y, D, codes)


def test_nothing_left_to_learn_replaces_nothing():
    D, Y = torch.eye(3).double(), torch.tensor([[2.0, 0, 0], [0, 1, 0]]).double()
    assert torch.equal(replace_atoms(Y, D, Y.clone()), D)


# Learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_planted_dictionary_is_found(method):
    D, _, Y = planted(1, noise=0.1)
    start = (Y[:50] / Y[:50].norm(dim=1, keepdim=True)).mT.contiguous()
    learned = learn_dictionary(Y, start, n_nonzero_coefs=3, method=method, steps=50)

    def share(E):
        return ((D.mT @ E).abs().amax(1) > 0.99).double().mean()

    assert share(start) < 0.1
    assert share(learned.dictionary) >= 0.88
    assert learned.history.shape == (50,)
    assert learned.history[-1] == pytest.approx(
        error(Y, learned.dictionary, learned.codes) / Y.numel()
    )
    assert ((learned.codes != 0).sum(1) <= 3).all()


def test_methods_differ():
    Y = randn(300, 8)
    ends = {m: learn_dictionary(Y, unit(8, 16), n_nonzero_coefs=2, method=m) for m in METHODS}
    assert len({round(float(e.history[-1]), 8) for e in ends.values()}) == 3


def test_learned_atoms_beat_cosines_on_a_photograph():
    patches = extract_patches(photograph("coffee", size=96), size=8, stride=2).double()
    patches = patches - patches.mean(-1, keepdim=True)
    start = dct_dictionary(8, 11).double()
    learned = learn_dictionary(patches, start, n_nonzero_coefs=3, steps=5)
    cosines = error(patches, start, omp(patches, start, n_nonzero_coefs=3))
    assert error(patches, learned.dictionary, learned.codes) < 0.7 * cosines


# The cosine dictionary, patches ------------------------------------------------------------------


def test_dct_dictionary():
    D = dct_dictionary(8, 16)
    assert D.shape == (64, 256)
    assert torch.allclose(D.norm(dim=0), torch.ones(256), atol=1e-6)
    assert torch.allclose(D[:, 0], torch.full((64,), 1 / 8))
    assert D[:, 1:].sum(0).abs().max() < 1e-5  # all others have no mean
    i = torch.arange(8.0)
    one = torch.cos(math.pi * (i + 0.5) * 3 / 8)
    assert torch.allclose(
        dct_dictionary(8, 8)[:, 3 * 8], torch.outer(one, torch.ones(8)).flatten() / (2 * 8**0.5)
    )


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 6), st.integers(1, 3))
def test_patches_there_and_back(size, more_h, more_w, stride):
    h, w = size + more_h, size + more_w
    x = randn(2, h, w)
    patches = extract_patches(x, size=size, stride=stride)
    assert torch.equal(patches[1, 0], x[1, :size, :size].flatten())
    assert patches.shape[1] == (more_h // stride + 1) * (more_w // stride + 1)
    if stride == 1:
        assert torch.allclose(average_patches(patches, (h, w)), x)
    # Least squares: the cover-weighted average is the adjoint of the extraction.
    p = randn(*patches.shape, seed=1)
    ones = torch.ones_like(x)
    cover = (h - size + 1) * (w - size + 1) if stride == 1 else None
    mean = average_patches(p, (h, w), stride=stride)
    count = torch.nn.functional.fold(
        torch.ones(2, size * size, p.shape[1]).double(), (h, w), size, stride=stride
    )[:, 0]
    assert torch.isclose((patches * p).sum(), (x * mean * count).sum())
    assert cover is None or count.sum() == 2 * cover * size**2
    assert (mean[count == 0] == 0).all() and ones.shape == mean.shape


def test_average_is_the_mean_of_what_covers():
    patches = torch.tensor([[0.0, 0.0], [0.0, 0.0]]).repeat(1, 2)  # two 2 x 2 patches, 2 x 3 image
    patches[1] = 4.0
    expected = torch.tensor([[0.0, 2.0, 4.0]]).repeat(2, 1)
    assert torch.equal(average_patches(patches, (2, 3)), expected)


# Denoising ---------------------------------------------------------------------------------------


def test_denoising_beats_wavelets_and_is_the_sum_of_its_parts():
    x = photograph("camera", size=128)
    sigma = 25 / 255
    y = add_noise(x, sigma, seed=0)
    D = dct_dictionary(8, 16)
    restored = denoise_dictionary(y, D, sigma=sigma)
    patches = extract_patches(y, size=8)
    mean = patches.mean(-1, keepdim=True)
    codes = omp(patches - mean, D, tol=64 * (1.15 * sigma) ** 2)
    assert torch.allclose(restored, average_patches(codes @ D.mT + mean, (128, 128)))
    assert psnr(restored, x) > psnr(denoise_wavelet(y, sigma=sigma), x) + 0.5
    batch = denoise_dictionary(torch.stack([y, x])[None], D, sigma=sigma)
    assert batch.shape == (1, 2, 128, 128)
    assert torch.allclose(batch[0, 0], restored, atol=1e-6)


def test_options_of_denoising_have_an_effect():
    x = photograph("coffee", size=64)
    y, D = add_noise(x, 0.1, seed=0), dct_dictionary(8, 8)
    plain = denoise_dictionary(y, D, sigma=0.1)
    assert not torch.equal(plain, denoise_dictionary(y, D, sigma=0.1, gain=1.0))
    coarse = denoise_dictionary(y, D, sigma=0.1, stride=4)
    assert psnr(plain, x) > psnr(coarse, x)
    nothing = denoise_dictionary(y.double(), D.double(), sigma=0.0)
    assert torch.allclose(nothing, y.double(), atol=1e-7)


# Refusals ----------------------------------------------------------------------------------------


@pytest.fixture
def unchecked():
    """Without the run-time type checks, which no user has."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_refusals(unchecked):
    Y, D, codes = randn(5, 4), unit(4, 6), torch.zeros(5, 6).double()
    for update in (*UPDATES.values(), replace_atoms):
        with pytest.raises(ValueError, match="signals of shape .* contains NaN"):
            update(Y * math.nan, D, codes)
        with pytest.raises(ValueError, match="codes have|codes of shape|torch.float32"):
            update(Y, D, codes.float())
    with pytest.raises(ValueError, match="max_cosine = 0"):
        replace_atoms(Y, D, codes, max_cosine=0.0)
    with pytest.raises(ValueError, match="unknown method 'svd': allowed are mod, ksvd"):
        learn_dictionary(Y, D, n_nonzero_coefs=2, method="svd")
    with pytest.raises(ValueError, match="steps = 0: at least 1"):
        learn_dictionary(Y, D, n_nonzero_coefs=2, steps=0)
    with pytest.raises(ValueError, match="n_nonzero_coefs = 5: 1 to 4"):
        learn_dictionary(Y, D, n_nonzero_coefs=5)
    with pytest.raises(ValueError, match="has length 3"):
        learn_dictionary(Y, 3 * D, n_nonzero_coefs=2)
    with pytest.raises(ValueError, match="size = 8, atoms = 7: 1 <= size <= atoms"):
        dct_dictionary(8, 7)
    with pytest.raises(ValueError, match=r"size = 9, stride = 1: 1 <= size <= \(8, 8\)"):
        extract_patches(torch.zeros(8, 8), size=9)
    with pytest.raises(ValueError, match="size = 2, stride = 0"):
        extract_patches(torch.zeros(8, 8), size=2, stride=0)
    with pytest.raises(ValueError, match=r"patches of shape \(3, 4\): \(\*batch, 4, size\^2\)"):
        average_patches(torch.zeros(3, 4), (3, 3))
    with pytest.raises(ValueError, match="sigma = -1"):
        denoise_dictionary(torch.zeros(8, 8), dct_dictionary(4, 4), sigma=-1.0)
    with pytest.raises(ValueError, match=r"dictionary of shape \(5, 2\): n must be a square"):
        denoise_dictionary(torch.zeros(8, 8), unit(5, 2).float(), sigma=0.1)
    with pytest.raises(ValueError, match="NaN"):
        denoise_dictionary(torch.full((8, 8), math.nan), dct_dictionary(4, 4), sigma=0.1)
