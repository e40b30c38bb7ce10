"""The X-ray separation network: its layer, heads and losses; files, and runs that are killed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

from tutorial_lib import __main__ as command_line
from tutorial_lib.data import luma, mixture, photograph, write_image, xray_pairs
from tutorial_lib.data.files import read_array
from tutorial_lib.exclusion import haar_details, haar_details_adjoint
from tutorial_lib.networks.xray import (
    Filters,
    Layer,
    Response,
    XRayNet,
    clip,
    delta,
    exclude,
    same,
)
from tutorial_lib.regression import linear_regression
from tutorial_lib.training import separate as package
from tutorial_lib.training.recipes import xray
from tutorial_lib.training.separate import moved, register, separate, share_constant


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def centred(error):
    return error.var(correction=0).item()


@pytest.fixture(scope="module")
def mix():
    _, visible, hidden = xray_pairs(size=96, bundled=True)[0]
    return mixture(visible, hidden, ratio=0.4)


def test_exclude_is_its_formula_keeps_means_and_borders():
    y, other, mu = random(9, 11), random(9, 11, seed=1), torch.tensor(0.7)
    w = haar_details(y)
    shrunk = w.sign() * (w.abs() - mu * haar_details(other).abs()).relu()
    expected = y + haar_details_adjoint(shrunk - w)
    torch.testing.assert_close(exclude(y, other, mu), expected)
    torch.testing.assert_close(exclude(y, other, mu).mean(), y.mean())
    flat = torch.full((9, 11), 0.3)
    torch.testing.assert_close(exclude(flat, other, mu), flat)  # also on edges and in corners
    torch.testing.assert_close(exclude(y, flat, mu), y)
    v = random(50)
    torch.testing.assert_close(v - clip(v, torch.tensor(0.5)), v.sign() * (v.abs() - 0.5).relu())


def test_exclusion_lowers_shared_edges():
    def shared(a, b):
        return (haar_details(a) * haar_details(b)).abs().sum()

    y, other = random(16, 16), random(16, 16, seed=3)
    assert shared(exclude(y, other, torch.tensor(0.5)), other) < 0.9 * shared(y, other)


def test_layer_takes_the_gradient_steps_of_the_model():
    """Without thresholds, filters tied: each step is minus a multiple of the gradient."""
    torch.manual_seed(0)
    layer, step, tau, gamma = Layer(3, 2, 3).double(), 0.05, 0.7, 0.6
    Psi, Phi, Theta = (
        random(*s, seed=7).double() for s in ((1, 1, 3, 3), (2, 1, 3, 3), (1, 3, 3, 3))
    )

    def adjoint(bank):
        return bank.flip(-2, -1).transpose(0, 1)

    with torch.no_grad():
        layer.Q.copy_(Psi), layer.P.copy_(step * adjoint(Psi))
        layer.G.copy_(Phi), layer.F.copy_(step * gamma * adjoint(Phi))
        layer.D.copy_(Theta), layer.E.copy_(step * adjoint(Theta))
        layer.theta.fill_(-9.0), layer.mu.fill_(-9.0)  # softplus: zero
        layer.t.fill_(step * tau)
        t = torch.nn.functional.softplus(layer.t, 20.0)[0].item() / step
    # Zeros around the pictures: there the mirrored border of the layer is not felt.
    inner = torch.zeros(20, 20).double()
    inner[8:12, 8:12] = 1
    x, y_1, y_2 = (random(1, 1, 20, 20, seed=s).double() * inner for s in (1, 2, 3))
    r = random(1, 2, 20, 20, seed=4).double() * inner
    z_1, z_2 = (random(1, 3, 20, 20, seed=s).double() * inner for s in (5, 6))
    state = {"y_1": y_1, "y_2": y_2, "z_1": z_1, "z_2": z_2}

    def half(y_1, y_2, z_1, z_2, tau):
        square = lambda e: e.square().sum() / 2  # noqa: E731
        total = square(x - conv2d(y_1 + y_2, Psi, padding=1))
        total = total + gamma * square(r - conv2d(y_1, Phi, padding=1))
        return total + tau * sum(
            square(y - conv2d(z, Theta, padding=1)) for y, z in ((y_1, z_1), (y_2, z_2))
        )

    for key, weight in (("z_1", 1.0), ("z_2", 1.0), ("y_2", t), ("y_1", t)):
        own = state | {key: state[key].clone().requires_grad_()}
        (slope,) = torch.autograd.grad(half(**own, tau=weight), own[key])
        state[key] = state[key] - step * slope
    found = layer(x, r, y_1, y_2, z_1, z_2)
    for mine, key in zip(found, ("y_1", "y_2", "z_1", "z_2"), strict=True):
        torch.testing.assert_close(mine.detach(), state[key], atol=1e-8, rtol=0)


def test_sizes():
    assert parameters(Filters(1, 64, 64, 64, 1, size=5)) == 208_192  # the published head
    assert parameters(XRayNet().head) == 3_472
    assert parameters(XRayNet(layers=2)) - parameters(XRayNet(layers=1)) == 935
    assert parameters(Layer(64, 1, 5)) == 3_429 + 2  # as published, and one step t_j each


def test_response_knows_colours_and_not_places():
    net = Response(size=1)
    visible = torch.rand(1, 3, 6, 7)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(0))
    shuffled = visible.flatten(2)[..., order].reshape(visible.shape)
    torch.testing.assert_close(net(shuffled).flatten(), net(visible).flatten()[order])
    wide = Response(size=3)
    direct = conv_transpose2d(wide.bands(visible), wide.filters.flip(-2, -1).transpose(0, 1))
    torch.testing.assert_close(wide(visible)[..., 1:-1, 1:-1], direct[..., 2:-2, 2:-2])


@pytest.mark.parametrize("head", ["response", "linear", "nonlinear"])
def test_network_without_layers_and_one_by_one(head):
    torch.manual_seed(0)
    visible, x, guess = torch.rand(2, 3, 24, 20), random(2, 1, 24, 20), random(2, 1, 24, 20, seed=1)
    net = XRayNet(head=head, layers=0)
    surface, hidden, seen = net(visible, x, guess)
    first = net.head(visible) if head == "response" else guess
    torch.testing.assert_close(surface, first)
    torch.testing.assert_close(surface + hidden, x)
    assert seen.shape[1] == (1 if head == "response" else 3)
    net = XRayNet(head=head, layers=2, maps=4)
    both = net(visible, x, guess)
    alone = net(visible[1:], x[1:], guess[1:])
    for a, b in zip(both, alone, strict=True):
        torch.testing.assert_close(a[1:], b)


def test_every_option_of_the_network_has_an_effect_or_is_refused():
    for settings, words in (
        ({"head": "both"}, "unknown head 'both': allowed are response, linear"),
        ({"layers": -1}, "layers -1"),
        ({"size": 4}, "size 4"),
        ({"spread": 2}, "spread 2"),
    ):
        with pytest.raises(ValueError, match=words):
            XRayNet(**settings)
    assert delta(2, 1, 5, 0.25).sum() == 0.5
    x = random(1, 1, 6, 7)
    torch.testing.assert_close(same(x, delta(1, 1, 5)), x)


def test_exclusion_loss_is_its_formula():
    a, b = random(2, 1, 32, 32), random(2, 1, 32, 32, seed=1)
    expected = 0.0
    s = torch.sigmoid
    for k in range(3):
        u, v = (torch.nn.functional.avg_pool2d(t, 2**k) for t in (a, b))
        for dim in (-2, -1):
            p, q = u.diff(dim=dim), v.diff(dim=dim)
            alpha = 2 * p.abs().mean((1, 2, 3)) / q.abs().mean((1, 2, 3))
            psi = (2 * s(p) - 1) ** 2 * (2 * s(alpha[:, None, None, None] * q) - 1) ** 2
            expected = expected + psi.mean((1, 2, 3)).pow(0.25).mean() / 9
    torch.testing.assert_close(xray.exclusion_loss(a, b), expected, rtol=1e-4, atol=0)
    flat = torch.zeros(1, 1, 16, 16, requires_grad=True)
    xray.exclusion_loss(flat, flat).backward()
    assert flat.grad.isfinite().all()


def test_edges():
    x = random(5, 6)
    expected = x.diff(dim=0).abs().mean() + x.diff(dim=1).abs().mean()
    torch.testing.assert_close(xray.edges(x), expected, atol=1e-3, rtol=1e-3)


def test_hats_are_straight_between_knots():
    knots = torch.tensor([0.1, 0.2, 0.6, 1.0])
    values = torch.tensor([1.0, -2.0, 0.5, 3.0])
    x = torch.linspace(0.1, 1.0, 91).reshape(7, 13)
    curve = torch.einsum("k,khw->hw", values, xray.hats(x, knots))
    torch.testing.assert_close(curve.numpy(), np.interp(x, knots, values).astype(np.float32))
    torch.testing.assert_close(xray.hats(x, knots).sum(0), torch.ones(7, 13))


def blurred(x):
    return torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(x[None, None], (1,) * 4, mode="reflect"), 3, 1
    )[0, 0]


@pytest.mark.parametrize("kind", ["gray", "colour", "blur"])
def test_solve_takes_the_features_that_it_needs(kind):
    """Of the gray: curves are exact; of colours: so are theirs; of a blur: only filters are."""
    visible, hidden = (photograph(n, size=96, gray=False) for n in ("coffee", "astronaut"))
    below = 0.4 * hidden[0]
    surface = {
        "gray": 0.6 * (luma(visible) - 0.5).abs(),
        "colour": 0.5 * (visible[0] - 0.5).abs() + 0.3 * visible[2] ** 2,
        "blur": 0.5 * blurred(visible[1]),
    }[kind]
    torch.manual_seed(0)
    head = Response()  # bands as they begin: random functions of the colours
    found, features = xray.solve(head, visible, surface + below)
    assert features == dict(zip(("gray", "colour", "blur"), xray.FEATURES, strict=True))[kind]
    bound = {"gray": 1e-3, "colour": 3e-3, "blur": 0.02}[kind]
    assert centred(found - surface) < bound * centred(surface)
    linear = linear_regression(surface + below, visible)
    assert centred(found - surface) < 0.2 * centred(linear - surface)
    one, _ = xray.solve(head, visible, surface + below, squares=1)  # a part of the painting
    assert centred(one - surface) < 20 * bound * centred(surface)


def test_patches_depend_on_their_numbers_alone():
    painting = torch.arange(5 * 40 * 40.0).reshape(5, 40, 40)
    all_ = xray.patches(painting, torch.arange(6), size=16)
    some = xray.patches(painting, torch.tensor([4, 2]), size=16)
    assert [t.shape[1] for t in all_] == [3, 1, 1]
    assert torch.equal(some[1], all_[1][[4, 2]])
    assert not torch.equal(all_[0], xray.patches(painting, torch.arange(6), size=16, seed=1)[0])


def test_register_and_move():
    visible = photograph("coffee", size=64, gray=False)
    for shift in ((0, 0), (3, -2), (-8, 5)):
        x = 0.5 * (4 * visible[1] * (1 - visible[1])).roll(shift, (0, 1)) + 0.1 * random(64, 64)
        found, shares = register(visible, x)
        assert found == shift and shares.shape == (17, 17)
        assert shares.max() == shares[found[0] + 8, found[1] + 8]
    assert torch.equal(moved(visible, (2, -3))[:, 2:, :-3], visible[:, :-2, 3:])


def test_share_constant_makes_both_nonnegative():
    surface, hidden = torch.rand(50, 50) + 3, 2 * torch.rand(50, 50) - 1
    a = share_constant(surface, hidden)
    b = surface + hidden - a
    assert np.quantile(a, 0.002) > 0 and np.quantile(b, 0.002) > 0
    torch.testing.assert_close(a - a.mean(), surface - surface.mean())
    # Of the constant 2 that is left, each has a part in proportion to its spread, 1 to 2.
    torch.testing.assert_close(a.min(), torch.tensor(2 / 3), atol=0.02, rtol=0)


def test_separation_of_a_response_that_is_not_monotone(mix, tmp_path):
    found = separate(mix.visible, mix.xray, out=tmp_path, steps=200, patch=32)
    assert torch.equal(found.surface + found.hidden, mix.xray.double())
    error = centred(found.surface - mix.surface)
    assert error < 0.1 * centred(linear_regression(mix.xray, mix.visible) - mix.surface)
    assert (found.surface - mix.surface).mean().abs() < 0.05


def test_unit_of_the_xray_and_shift_of_the_picture_do_not_matter(mix, tmp_path):
    settings = {"steps": 20, "patch": 24, "batch_size": 2}
    plain = separate(mix.visible, mix.xray, out=tmp_path / "a", **settings)
    other = separate(mix.visible, 0.25 * mix.xray + 0.5, out=tmp_path / "b", **settings)
    a, b = (t.surface - t.surface.mean() for t in (plain, other))
    torch.testing.assert_close(4 * b, a, atol=2e-3, rtol=0)
    away = separate(moved(mix.visible, (2, -1)), mix.xray, out=tmp_path / "c", **settings)
    assert away.shift == (-2, 1) and plain.shift == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v, x: (v, x[:-1]), r"of one size, got \(96, 96\) and \(95, 96\)"),
        (lambda v, x: (v[:, :20], x[:20]), r"at least 24 pixels a side are needed, got \(20, 96\)"),
        (lambda v, x: (v, torch.full_like(x, 0.25)), "X-ray is flat: .* 0.25"),
    ],
)
def test_what_cannot_be_separated_is_refused(mix, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        separate(*change(mix.visible, mix.xray), out=tmp_path)


# The command ------------------------------------------------------------------------------------

PROGRAM = """
import sys
from tutorial_lib import __main__ as m
from tutorial_lib.training import separate
separate.PROFILES["smoke"] = {"steps": 300, "batch_size": 1, "patch": 24}
m.main()
"""


def command(*words):
    return [sys.executable, "-c", PROGRAM, "separate", *map(str, words), "--profile", "smoke"]


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tutorial_lib", "separate", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        return exit_.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def files(mix, tmp_path):
    write_image(tmp_path / "visible.png", mix.visible[:, :40, :48])
    write_image(tmp_path / "xray.png", mix.xray[:40, :48], bits=16)
    return tmp_path


def test_files_of_any_depth(run, files, mix):
    visible, x = files / "visible.png", files / "xray.png"
    np.save(files / "xray.npy", mix.xray[:40, :48].numpy())
    write_image(files / "gray.jpg", mix.visible[0, :40, :48])
    for a, b in ((visible, x), (visible, files / "xray.npy"), (files / "gray.jpg", visible)):
        out = files / f"{a.stem}-{b.name}"
        code, told, _ = run(a, b, out, "--profile", "smoke")
        assert code == 0 and "48 x 40" in told
        parts = [np.load(out / f"{name}.npy") for name in ("surface", "hidden")]
        levels = read_array(b)
        if b == x:
            assert np.array_equal(sum(parts), (levels / 65535).astype(np.float32))
        for name, part in zip(("surface", "hidden"), parts, strict=True):
            png = read_array(out / f"{name}.png")
            assert png.dtype == np.uint16 and png.shape == (40, 48)
            assert np.abs(png / 65535 - part.clip(0, 1)).max() < 1e-5
        record = json.loads((out / "record.json").read_text())
        assert record["size"] == [40, 48] and 0 < record["share"] < 1


def test_misfits_are_one_clear_line(run, files, mix):
    write_image(files / "small.png", mix.xray[:39, :48])
    code, _, err = run(files / "visible.png", files / "small.png", files / "out")
    assert code == 2 and err.count("\n") == 1
    assert "(40, 48)" in err and "(39, 48)" in err
    assert not (files / "out").exists()
    code, _, err = run(files / "visible.png", files / "xray.png", files / "small.png")
    assert code == 2 and "small.png is a file: the output needs a folder" in err
    words = (files / "visible.png", files / "xray.png", files / "out", "--profile", "best")
    assert "unknown profile 'best': allowed are smoke, cpu, full" in run(*words)[2]
    assert "no such file" in run(files / "visible.png", files / "x.png", files / "out")[2]


def test_another_painting_in_the_same_folder_is_refused(run, files):
    visible, x, out = files / "visible.png", files / "xray.png", files / "out"
    assert run(visible, x, out, "--profile", "smoke")[0] == 0
    code, _, err = run(x, visible, out, "--profile", "smoke")
    assert code == 2 and "is of another run" in err


def test_a_killed_run_resumes_and_ends_in_the_same_files(files):
    visible, x = files / "visible.png", files / "xray.png"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command(visible, x, files / "whole"), check=True, env=environment)
    killed = subprocess.Popen(
        command(visible, x, files / "killed"), stderr=subprocess.DEVNULL, env=environment
    )
    checkpoint = files / "killed/separation.checkpoint.safetensors"
    for _ in range(6_000):
        if checkpoint.exists():
            break
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert checkpoint.exists() and not (files / "killed/surface.npy").exists()
    again = subprocess.run(
        command(visible, x, files / "killed"), check=True, env=environment, stderr=subprocess.PIPE
    )
    bar = again.stderr.decode()
    assert "300/300" in bar and " 0/300" not in bar
    for name in ("surface.npy", "hidden.png"):
        assert (files / "killed" / name).read_bytes() == (files / "whole" / name).read_bytes()


def test_profiles_agree_on_their_keys():
    for profiles in (xray.PROFILES, package.PROFILES):
        assert len({frozenset(v) for v in profiles.values()}) == 1
