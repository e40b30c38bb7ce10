"""Plug and play: the data step and conjugate gradients, the published loop, its guards."""

import json
import math

import pytest
import torch

from benchmarks import deblurring
from tutorial_lib.data import available, levin_kernels, photograph
from tutorial_lib.operators import (
    LinearOperator,
    NotConvergedWarning,
    blur,
    identity,
    mask,
    matrix,
    subsample,
)
from tutorial_lib.plug_and_play import (
    conjugate_gradients,
    data_step,
    log_levels,
    plug_and_play,
    plug_and_play_scheduled,
    transfer_function,
)

KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.0], [0.0, 0.1, 0.1]], dtype=torch.float64)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def definite(n, *, seed=0):
    M = randn(n, n, seed=seed)
    return M @ M.T + torch.eye(n, dtype=torch.float64)


OPERATORS = {
    "circular blur": blur(KERNEL, (8, 9)),
    "padded blur": blur(KERNEL, (8, 9), boundary="padded"),
    "mask": mask(randn(8, 9) > 0),
    "subsampling": subsample((8, 9), factor=2),
    "identity": identity((8, 9)),
}
EACH = pytest.mark.parametrize("H", OPERATORS.values(), ids=OPERATORS)


def halve(x, level):
    """A denoiser: towards the mean, so that the spread of the image is halved."""
    mean = x.mean((1, 2), keepdim=True)
    return mean + (x - mean) / 2


def spread(x):
    return x.std((1, 2))


# The data step -----------------------------------------------------------------------------------


@EACH
def test_data_step_is_the_minimiser(H):
    y, z = randn(*H.shape_out, seed=1), randn(*H.shape_in, seed=2)
    x = data_step(y, H, z, 0.3)
    gradient = H.adjoint(H(x) - y) + 0.3 * (x - z)
    assert gradient.norm() < 2e-4 * (H.adjoint(y) + 0.3 * z).norm()


@EACH
def test_data_step_of_a_batch_takes_each_with_its_own_weight(H):
    y, z = randn(2, 3, *H.shape_out, seed=1), randn(2, 3, *H.shape_in, seed=2)
    weight = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    x = data_step(y, H, z, weight)
    alone = data_step(y[1, 2], H, z[1, 2], 6.0)
    assert torch.allclose(x[1, 2], alone, atol=1e-3)
    assert not torch.allclose(x[1, 2], data_step(y[1, 2], H, z[1, 2], 1.0), atol=1e-2)


def test_data_step_between_its_limits():
    H, x, z = OPERATORS["circular blur"], randn(8, 9, seed=1), randn(8, 9, seed=2)
    assert torch.allclose(data_step(H(x), H, z, 1e9), z, atol=1e-6)
    assert torch.allclose(data_step(H(x), H, z, 1e-12), x, atol=1e-6)


def test_only_circular_convolutions_have_a_transfer_function():
    like = randn(1)
    h = transfer_function(OPERATORS["circular blur"], like)
    padded = torch.zeros(8, 9, dtype=torch.float64)
    padded[:3, :3] = KERNEL
    assert torch.allclose(h, torch.fft.rfft2(padded.roll((-1, -1), (0, 1))))
    assert torch.allclose(transfer_function(OPERATORS["identity"], like), torch.ones(()).to(h))
    for name in ("padded blur", "mask", "subsampling"):
        assert transfer_function(OPERATORS[name], like) is None
    single = blur(KERNEL.float(), (8, 9))
    assert transfer_function(single, torch.zeros(1)) is not None  # rounding is not a difference


def test_data_step_refuses():
    H, y = OPERATORS["circular blur"], randn(8, 9)
    with pytest.raises(ValueError, match=r"z0 of shape \(9, 8\): expected \(8, 9\)"):
        data_step(y, H, y.T, 1.0)
    with pytest.raises(ValueError, match=r"weight = -1.0: it must be nonnegative"):
        data_step(y, H, y, -1.0)
    with pytest.raises(ValueError, match="y of shape .* contains NaN"):
        data_step(y * math.nan, H, y, 1.0)


# Conjugate gradients -----------------------------------------------------------------------------


def test_conjugate_gradients_solve_in_n_steps():
    M, b = definite(12), randn(12, seed=3)
    found = conjugate_gradients(matrix(M), b, rtol=1e-10)
    assert torch.allclose(found.value, torch.linalg.solve(M, b), atol=1e-8)
    assert found.converged
    assert found.steps <= 14  # n, and rounding
    assert found.history.shape == (found.steps,)


def test_as_many_steps_as_different_eigenvalues():
    A = matrix(torch.diag(torch.tensor([1.0, 4.0, 9.0] * 10, dtype=torch.float64)))
    assert conjugate_gradients(A, randn(30), rtol=1e-10).steps == 3


def test_conjugate_gradients_obey_their_theorem():
    values = torch.linspace(1, 100, 200, dtype=torch.float64)
    A, b = matrix(torch.diag(values)), randn(200)
    exact, rate = b / values, 9 / 11  # sqrt(c) = 10
    start = (exact * values * exact).sum().sqrt()
    for k in (5, 20, 40):
        with pytest.warns(NotConvergedWarning):
            error = conjugate_gradients(A, b, max_steps=k, rtol=1e-12).value - exact
        assert (error * values * error).sum().sqrt() <= 2 * rate**k * start


def test_elements_of_a_batch_do_not_disturb_each_other():
    A = matrix(definite(10))
    b = torch.stack([randn(10), torch.zeros(10, dtype=torch.float64), 1e-6 * randn(10, seed=5)])
    together = conjugate_gradients(A, b.reshape(3, 1, 10), rtol=1e-9)
    assert together.converged.all() and together.converged.shape == (3, 1)
    assert (together.value[1] == 0).all()
    for i in (0, 2):
        alone = conjugate_gradients(A, b[i], rtol=1e-9).value
        assert torch.allclose(together.value[i, 0], alone, rtol=1e-7, atol=0)


def test_a_start_at_the_solution_stays():
    M, b = definite(6), randn(6)
    solution = torch.linalg.solve(M, b)
    found = conjugate_gradients(matrix(M), b, x0=solution, rtol=1e-9)
    assert found.steps == 0 and torch.equal(found.value, solution)


def test_conjugate_gradients_refuse():
    A, b = matrix(definite(6)), randn(6)
    with pytest.raises(ValueError, match="b of shape .* contains NaN"):
        conjugate_gradients(A, b * math.nan)
    with pytest.raises(ValueError, match="not positive definite"):
        conjugate_gradients(matrix(-definite(6)), b)
    with pytest.raises(ValueError, match="not positive definite: <p, A p> = nan"):
        conjugate_gradients(LinearOperator(lambda x: x / 0 - x / 0, lambda x: x, (6,), (6,)), b)
    with pytest.raises(ValueError, match=r"b of shape \(5,\)"):
        conjugate_gradients(A, b[:5])
    with pytest.raises(ValueError, match=r"x0 of shape \(5,\)"):
        conjugate_gradients(A, b, x0=b[:5])
    with pytest.raises(ValueError, match="rtol = 0"):
        conjugate_gradients(A, b, rtol=0.0)
    with pytest.raises(ValueError, match="max_steps = 0"):
        conjugate_gradients(A, b, max_steps=0)
    with pytest.warns(NotConvergedWarning, match="1 of 1 did not reach rtol"):
        assert not conjugate_gradients(A, b, max_steps=1).converged


# The loop ----------------------------------------------------------------------------------------


def test_the_loop_is_the_published_one():
    H, y = OPERATORS["circular blur"], randn(8, 9)
    asked = []

    def denoise(x, level):
        asked.append(level)
        return halve(x, level)

    run = plug_and_play(y, H, denoise=denoise, estimate=spread, lam=50)
    first = y.std()
    beta, z, levels = 10 * first, y, []
    while beta > first:
        x = data_step(y, H, z, 50 * (first / beta) ** 2)
        beta = x.std()
        z = halve(x[None], beta)[0]
        levels.append(beta)
    assert run.steps == len(levels) and run.converged
    assert torch.allclose(run.value, z.clamp(0, 1))
    assert torch.allclose(run.fitted, x.clamp(0, 1))
    assert torch.allclose(run.history, torch.stack([first, *levels]))
    assert torch.allclose(torch.cat(asked), 2 * torch.stack(levels))


def test_elements_stop_by_themselves():
    H = OPERATORS["identity"]
    y = torch.stack([randn(8, 9), randn(8, 9, seed=1)])
    left = iter([5.0, 0.5, 0.5])  # the first level of the second image falls late

    def estimate(x):
        levels = torch.full((len(x),), 0.5, dtype=x.dtype)
        if estimate.seen:
            levels[-1] = next(left)
        else:
            levels[:] = 1.0
        estimate.seen = True
        return levels

    estimate.seen = False
    run = plug_and_play(y, H, denoise=halve, estimate=estimate)
    assert run.steps == 2 and run.converged.tolist() == [True, True]
    assert run.history[:, 0].isnan().tolist() == [False, False, True]
    assert run.history[:, 1].tolist() == [1.0, 5.0, 0.5]


def test_a_batch_equals_its_elements():
    H, y = OPERATORS["circular blur"], 0.5 + randn(2, 2, 8, 9)
    together = plug_and_play(y, H, denoise=halve, estimate=spread, lam=50)
    assert together.value.shape == y.shape and together.history.shape[1:] == (2, 2)
    for i in range(2):
        alone = plug_and_play(y[i, 1], H, denoise=halve, estimate=spread, lam=50)
        assert torch.allclose(together.value[i, 1], alone.value)


def test_known_level_and_start_are_used():
    H, y = OPERATORS["mask"], OPERATORS["mask"](randn(8, 9))
    filled = torch.full_like(y, 0.5)
    seen = []
    plug_and_play(
        y,
        H,
        denoise=halve,
        estimate=lambda x: torch.full((len(x),), 0.01, dtype=x.dtype),
        sigma=0.01,
        z0=filled,
        callback=lambda k, x, z: seen.append(x),
    )
    assert len(seen) == 1
    assert torch.allclose(seen[0], data_step(y, H, filled, 0.0023), atol=1e-3)


def never_falls(x):
    return torch.ones(len(x), dtype=x.dtype)


def stuck(x):
    return never_falls(x) * (5.0 if stuck.calls.pop() else 1.0)


def test_an_estimate_that_does_not_fall_ends_at_the_cap():
    stuck.calls = [True] * 30 + [False]
    with pytest.warns(NotConvergedWarning, match="1 of 1 did not come down.*7 steps.*5.00 times"):
        run = plug_and_play(
            randn(8, 9), OPERATORS["identity"], denoise=halve, estimate=stuck, max_steps=7
        )
    assert run.steps == 7 and not run.converged


def test_without_decay_the_level_goes_where_the_estimate_says():
    said = [1.0, 5.0, 7.0, 12.0, 0.5]  # of y, x_1, ...: it rises, even above its start
    left = iter(said)
    run = plug_and_play(
        randn(8, 9),
        OPERATORS["identity"],
        denoise=halve,
        estimate=lambda x: torch.full((len(x),), next(left), dtype=x.dtype),
    )
    assert run.history.tolist() == said and run.steps == 4 and run.converged


@pytest.mark.parametrize("decay", [0.5, 0.8, 0.95])
def test_with_decay_it_ends_whatever_the_estimate_says(decay):
    stuck.calls = [True] * 98 + [False]
    run = plug_and_play(
        randn(8, 9),
        OPERATORS["identity"],
        denoise=halve,
        estimate=stuck,
        decay=decay,
        max_steps=100,
    )
    assert run.converged
    assert run.steps <= 1 + math.log(10) / math.log(1 / decay)


def test_the_scheduled_loop_has_its_fixed_point_where_the_map_says():
    # R(z) = ||z||^2 / (2 t^2): the denoiser for level s is z = x t^2 / (t^2 + s^2), and at a fixed
    # level the loop goes to the minimiser over x and z together, which a linear solve gives.
    H, y, t, sigma, s = OPERATORS["circular blur"], randn(8, 9), 0.7, 0.1, 0.3
    run = plug_and_play_scheduled(
        y + 0.5,
        H,
        denoise=lambda x, level: x * t**2 / (t**2 + level[:, None, None] ** 2),
        sigma=sigma,
        levels=[s] * 400,
        lam=1.0,
    )
    # eliminate z: ||y - Hx||^2 / sigma^2 + ||x||^2 / (t^2 + s^2)
    exact = data_step(y + 0.5, H, torch.zeros_like(y), sigma**2 / (t**2 + s**2))
    assert torch.allclose(run.fitted, exact.clamp(0, 1), atol=1e-6)
    assert run.steps == 400 and not run.converged
    assert run.history[0] == sigma and (run.history[1:] == s).all()


def test_log_levels_are_geometric():
    levels = torch.tensor(log_levels(0.01), dtype=torch.float64)
    ratio = levels[1:] / levels[:-1]
    assert len(levels) == 8 and torch.allclose(ratio, ratio[0].expand(7))
    assert levels[0] == pytest.approx(49 / 255) and levels[-1] == pytest.approx(0.01)
    with pytest.raises(ValueError, match=r"sigma = 0.3"):
        log_levels(0.3)
    with pytest.raises(ValueError, match="steps = 1"):
        log_levels(0.01, steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": -1.0}, "lam = -1.0: expected at least 0"),
        ({"strength": 0.0}, "strength = 0.0: expected positive"),
        ({"start": 1.0}, "start = 1.0: expected above 1"),
        ({"decay": 1.5}, r"decay = 1.5: expected in \(0, 1\]"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"sigma": 0.0}, r"noise level of y = \[0.0\]"),
        ({"estimate": lambda x: x.mean()}, r"estimate\(y\) = .*expected 1 finite"),
        ({"estimate": lambda x: x.new_full((1,), math.nan)}, r"estimate\(y\) = \[nan\]"),
        ({"denoise": lambda x, s: x[:, 1:]}, r"denoise\(x_1\) of shape \(1, 7, 9\)"),
        ({"denoise": lambda x, s: x / 0}, "expected finite values"),
        ({"z0": torch.zeros(3, 3, dtype=torch.float64)}, r"z0 of shape \(3, 3\)"),
    ],
)
def test_the_loop_refuses(options, message):
    call = {"denoise": halve, "estimate": spread} | options
    with pytest.raises(ValueError, match=message):
        plug_and_play(randn(8, 9), OPERATORS["circular blur"], **call)


def test_without_a_weight_a_singular_blur_is_refused():
    H = blur(torch.tensor([[0.5, 0.5]], dtype=torch.float64), (8, 8))  # no Nyquist frequency
    with pytest.raises(ValueError, match="x_1 is not finite: .* lam must be positive"):
        plug_and_play(randn(8, 8), H, denoise=halve, estimate=spread, lam=0)


def test_the_loop_refuses_other_observations():
    call = {"denoise": halve, "estimate": spread}
    H = OPERATORS["circular blur"]
    with pytest.raises(ValueError, match="contains NaN"):
        plug_and_play(randn(8, 9) * math.nan, H, **call)
    with pytest.raises(ValueError, match=r"y of shape \(8, 8\)"):
        plug_and_play(randn(8, 8), H, **call)
    with pytest.raises(ValueError, match=r"levels = 0"):
        plug_and_play_scheduled(randn(8, 9), H, denoise=halve, sigma=0.1, levels=[])
    with pytest.raises(ValueError, match=r"sigma = -1"):
        plug_and_play_scheduled(randn(8, 9), H, denoise=halve, sigma=-1, levels=[0.1])


# With the networks -------------------------------------------------------------------------------


@pytest.mark.data
def test_the_recorded_table_is_what_the_shipped_weights_do():
    if not available("Levin") or not deblurring.FILE.is_file():
        pytest.skip("needs Levin's kernels and the record of benchmarks.deblurring")
    record = json.loads(deblurring.FILE.read_text())
    assert [len(record[part]) for part in ("classical", "learned")] == [8, 8]
    clean = photograph(record["photographs"][0], size=deblurring.SIZE)[None]
    with torch.no_grad():
        now = deblurring.learned(*deblurring.problem(levin_kernels()[4], clean), clean)
    for name in ("plug-and-play", "its last x", "fixed schedule"):
        assert now[name].item() == pytest.approx(record["learned"][4][name][0], abs=0.05)
    assert now["steps"].item() == record["learned"][4]["steps"][0]
