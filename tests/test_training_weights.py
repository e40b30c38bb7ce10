"""Weights and their records: what is kept, what is refused, and what a chapter gets."""

import hashlib
import json
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
import toy_training as toy
from torch import nn

from tutorial_lib.training import fit_or_load, load_weights, save_weights, shipped, weights
from tutorial_lib.training.chapter import check_training
from tutorial_lib.training.record import describe, thin
from tutorial_lib.training.state import Run

SMOKE = SimpleNamespace(name="smoke", steps=8)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty folder in place of the package's weights, and another to work in."""
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.delenv("TUTORIAL_REQUIRE_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights"


class Tied(nn.Module):
    """Two names for one parameter, a buffer of integers, one kept out of the state."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)
        self.b = self.a
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("cache", torch.ones(2), persistent=False)


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded(package, half):
    network, record = Tied(), {"steps": 3, "scores": {"psnr": 30.5}}
    path = save_weights("net", network, record, half=half)
    assert path == package / "net.safetensors"
    assert shipped() == ["net"]
    state, told = load_weights("net")
    assert told == record
    assert sorted(state) == ["a.bias", "a.weight", "count"]
    assert (state["a.weight"].dtype, state["count"]) == (torch.float32, 7)
    error = (state["a.weight"] - network.a.weight).abs().max()
    assert (0 < error < 1e-3) if half else error == 0
    other = weights.load_network("net", Tied())
    assert torch.equal(other.a.weight, state["a.weight"])
    assert not other.training
    save_weights("second", nn.Linear(1, 1), {})
    assert shipped() == ["net", "second"]


@pytest.mark.parametrize("damage", ["cut", "bit", "other", "record"])
def test_a_damaged_file_is_refused_with_both_checksums(package, damage):
    path = save_weights("net", nn.Linear(3, 2), {"steps": 3})
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-1]
    elif damage == "bit":
        content[-1] ^= 1
    elif damage == "other":
        content = b"something else"
    else:
        path = path.with_suffix(".json")
        expected = hashlib.sha256(path.read_bytes()).hexdigest()
        content = b'{"steps": 4}'
    path.write_bytes(content)
    came = hashlib.sha256(bytes(content)).hexdigest()
    message = rf"{path.name} is damaged .* expected sha256 {expected}, got {came} \({len(content)} "
    with pytest.raises(ValueError, match=message):
        load_weights("net")


def test_nothing_is_unpickled(package, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    path = save_weights("net", nn.Linear(3, 2), {})
    path.write_bytes(pickle.dumps(Bomb()))
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["net.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (package / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_weights("net")
    assert not (tmp_path / "exploded").exists()


def test_what_is_not_there(package):
    with pytest.raises(FileNotFoundError, match="no weights 'net' in .*: there are none"):
        load_weights("net")
    save_weights("other", nn.Linear(1, 1), {}).unlink()
    with pytest.raises(FileNotFoundError, match="no weights 'other'"):
        load_weights("other")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(3, 4), r"'net' do not fit .* bias is \(2,\) there, \(4,\) in the network"),
        (nn.Linear(3, 2, bias=False), r"bias is \(2,\) there, missing in the network"),
        (nn.Sequential(nn.Linear(3, 2)), r"0.bias is missing there, \(2,\) in the network"),
    ],
)
def test_weights_that_do_not_fit(package, network, message):
    save_weights("net", nn.Linear(3, 2), {})
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(ValueError, match=message):
        weights.load_network("net", network)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def test_saving_refuses_names_and_overflow(package):
    with pytest.raises(ValueError, match=r"name '\.\./net'"):
        save_weights("../net", nn.Linear(1, 1), {})
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, 1e5)
    with pytest.raises(ValueError, match=r"weight of net is not finite as torch\.float16"):
        save_weights("net", network, {}, half=True)
    assert not package.exists()


def test_the_weights_of_the_package_are_whole_and_small():
    for name in shipped():
        state, record = load_weights(name)
        assert all(value.isfinite().all() for value in state.values())
        assert describe(record)
    sizes = [p.stat().st_size for p in weights.WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == len(shipped())
    assert max(sizes, default=0) <= 5_000_000
    assert sum(sizes) <= 25_000_000


def test_curves_are_thinned_to_means():
    assert thin([1.0] * 3) == [1.0] * 3
    assert thin([]) == []
    values = torch.rand(12_345).tolist()
    assert len(thin(values)) == 200
    assert sum(thin(values)) / 200 == pytest.approx(sum(values) / len(values), abs=1e-3)


# fit_or_load ----------------------------------------------------------------------------------


def toy_recipe():
    return toy.recipe(network=lambda: nn.Linear(4, 1), lr=0.05)


def test_smoke_trains_and_shows_the_recorded_weights(package, tmp_path):
    trained = fit_or_load("net", toy_recipe(), SMOKE)
    assert "trained here: 8 steps" in trained.origin
    assert "loss on the first batch" in trained.origin
    network = nn.Linear(4, 1)
    save_weights("net", network, trained.record)
    run = fit_or_load("net", toy_recipe(), SMOKE)
    assert torch.equal(run.network.weight, network.weight)
    assert run.origin.startswith("weights 'net': 8 steps")
    assert "\ntrained here: 8 steps" in run.origin
    assert run.history["validated"] == trained.history["validated"]
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("retrain", [False, True])
def test_other_profiles_load_unless_asked(package, tmp_path, retrain):
    cfg = SimpleNamespace(name="cpu", steps=12, seed=1)
    trained = fit_or_load("net", toy_recipe(), cfg)
    assert len(trained.history["loss"]) == 12
    assert (trained.record["seed"], trained.record["config"]["steps"]) == (1, 12)
    network = nn.Linear(4, 1)
    save_weights("net", network, trained.record)
    run = fit_or_load("net", toy_recipe(), cfg, retrain=retrain)
    assert torch.equal(run.network.weight, network.weight) != retrain
    assert torch.equal(run.network.weight, trained.network.weight) == retrain
    assert not (tmp_path / "runs/net-cpu").exists()


def test_an_interrupted_cell_goes_on(package, tmp_path):
    drawn = []

    def batch(index):
        drawn.append(int(index[0]))
        if index[0] == 40 and len(drawn) <= 11:
            raise InterruptedError
        return toy.batch(index)

    cfg = SimpleNamespace(name="cpu", steps=12)
    recipe = toy.recipe(batch=batch)
    with pytest.raises(InterruptedError):
        fit_or_load("net", recipe, cfg)
    fit_or_load("net", recipe, cfg)
    assert drawn == [*range(0, 41, 4), 40, 44]


def test_weights_can_be_required(package, monkeypatch):
    monkeypatch.setenv("TUTORIAL_REQUIRE_WEIGHTS", "1")
    with pytest.raises(RuntimeError, match="no weights 'net' come with the package"):
        fit_or_load("net", toy_recipe(), SMOKE)


def test_smoke_checks(package):
    class Dead(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight, self.bias.detach())

    with pytest.raises(RuntimeError, match="net: no gradient reaches bias"):
        fit_or_load("net", toy.recipe(network=lambda: Dead(4, 1)), SMOKE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        initial = nn.Linear(4, 1)
    run = Run(initial, "", {"name": "net", "steps": 8}, {})
    with pytest.raises(RuntimeError, match="8 steps do not lower the loss on the first batch"):
        check_training(run, toy_recipe())


def test_no_warning(package):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_or_load("net", toy_recipe(), SMOKE)
