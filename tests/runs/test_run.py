"""Recipes that train spiking networks: read, refused, trained and continued by one verb."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from firstspike.cli.app import app
from firstspike.codes import TTFS
from firstspike.conversion import Percentile, convert
from firstspike.measure.result import read_results
from firstspike.neurons.surrogates import Triangle
from firstspike.runs import Recipe, Run, train
from firstspike.runs.recipe import recipe_names
from firstspike.runs.run import start_model
from firstspike.training.clipped import QuantizedReLU

ANN = {"model": {"name": "digits_cnn", "width": 0.25}, "data": {"name": "digits"}}
RECIPE = ANN | {
    "code": {"name": "TTFS", "window": 4, "kernel": {"name": "Linear"}},
    "method": {"name": "QuantizerAware", "teacher": True},
    "calibration": 100,
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.005},
}


def write(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes of an ANN and of a spiking network that starts from it."""
    folder = tmp_path_factory.mktemp("recipes")
    write(folder / "a_few_steps.yaml", RECIPE | {"few_step": {}})  # of another script
    write(folder / "ann.yaml", ANN | {"training": RECIPE["training"]})
    write(folder / "spiking.yaml", RECIPE | {"start": str(folder / "ann")})
    return folder


def test_one_verb_trains_the_ann_and_the_spiking_network(folder: Path, tmp_path: Path) -> None:
    assert Recipe.read(folder / "ann.yaml").code is None
    recipe = Recipe.read(folder / "spiking.yaml")
    assert recipe.code["name"] == "TTFS" and recipe.name == "spiking"
    ann = folder / "ann"
    command = f"firstspike train --recipe {folder / 'ann.yaml'} --out {ann}"
    with pytest.raises(FileNotFoundError, match="`start` must be the run of a trained ANN") as info:
        train(recipe, tmp_path / "early")
    assert command in str(info.value)
    run(*command.split()[1:], "--threads", 1)
    out, file = tmp_path / "run", tmp_path / "result.json"
    arguments = ("train", "--recipe", folder / "spiking.yaml", "--out", out, "--threads", 1)
    run(*arguments, "--json", file, "--seed", 3)
    (result,) = read_results(file)
    assert (result.seed, result.split) == (3, "validation") and result.code["name"] == "TTFS"
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert result.accuracy == history[-1]["validation_accuracy"]
    assert Run(out).network.latency == result.latency_steps
    # a finished run trains no more, by its own config as well; another start is another run
    before = (out / "metrics.jsonl").stat().st_mtime_ns
    run("train", "--recipe", out / "config.yaml", "--out", out, "--threads", 1)
    assert [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()] == history
    assert (out / "metrics.jsonl").stat().st_mtime_ns >= before
    with pytest.raises(ValueError, match=r"cannot resume .* start: "):
        run(*arguments, "--seed", 3, "--start", _copy(ann, tmp_path / "other"))
    run(*arguments, "--seed", 3, "--start", tmp_path / "other", "--restart")


def test_a_last_training_takes_every_image(tmp_path: Path) -> None:
    content = ANN | {"training": RECIPE["training"]}
    out = tmp_path / "all"
    earlier = train(Recipe(**content), out, progress=False)
    assert earlier.result is not None
    recipe = Recipe.read(write(tmp_path / "all.yaml", content | {"validate": False}))
    training, validation = recipe.training_sets()
    assert (len(training), validation) == (1297, None)
    said = run("train", "--recipe", tmp_path / "all.yaml", "--out", out, "--restart")
    assert "trained on all images, none is left to validate" in said
    made = Run(out)
    assert made.result is None and not made.recipe.validate  # nothing of the earlier run
    assert not any("validation_loss" in record for record in made.curve)
    assert made.recipe.describe()["validate"] is False
    assert "validate" not in Recipe(**ANN).describe()
    with pytest.raises(ValueError, match=r"`split` must not be 'validation': .* `--split test`"):
        made.dataset("validation")
    assert len(made.dataset("test")) == 500
    spiking = RECIPE | {"start": str(out)}
    with pytest.raises(ValueError, match="`validate` must be false, got true"):
        train(Recipe(**spiking), tmp_path / "spiking")
    last = write(tmp_path / "spiking.yaml", spiking | {"validate": False})
    said = run("train", "--recipe", last, "--out", tmp_path / "spiking")
    command = f"firstspike evaluate {tmp_path / 'spiking'} --split test"
    assert f"`{command}` measures the network, once." in said
    run(*command.split()[1:])
    assert Run(tmp_path / "spiking").result.split == "test"
    assert "images that it knows" in run("convert", out, "--code", "TTFS(4)")


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def test_a_recipe_can_train_output_spike_times(tmp_path: Path) -> None:
    content = RECIPE | {"code": {"name": "ReLPSP"}, "output_window": 4.0}
    content["method"] = {"name": "DTA", "output": "spike_times"}
    out = tmp_path / "run"
    run("train", "--recipe", write(tmp_path / "r.yaml", content), "--out", out, "--threads", 1)
    assert Run(out).network.origin["output_window"] == 4.0
    assert Recipe.read(out / "config.yaml").output_window == 4.0


def test_few_steps_by_the_papers_pipeline(tmp_path: Path) -> None:
    """Trained limits, percentile search, training through time: each by `firstspike train`."""
    ann = tmp_path / "ann"
    clipped = ANN | {"trained_ranges": {"limit": 2.0}, "training": {"epochs": 2, "batch_size": 64}}
    run("train", "--recipe", write(tmp_path / "a.yaml", clipped), "--out", ann, "--threads", 1)
    opened = Run(str(ann))  # type: ignore[arg-type]
    limits = [m.max_val for m in opened.model.modules() if isinstance(m, nn.Hardtanh)]
    assert len(limits) == 3 and all(x > 0 and x != 2.0 for x in limits), "they are trained"
    assert Recipe.read(ann / "config.yaml").trained_ranges == {"limit": 2.0}
    content = ANN | {
        "start": str(ann),
        "normalization": {"name": "Limit"},
        "code": {"name": "FewStep", "steps": 2, "thresholds": {"name": "PercentileSearch"}},
        "method": {"name": "SGL", "surrogate": {"name": "Triangle"}, "unit_slope": True},
        "training": {"epochs": 1, "batch_size": 64},
    }
    out = tmp_path / "few"
    run("train", "--recipe", write(tmp_path / "b.yaml", content), "--out", out, "--threads", 1)
    network = Run(out).network
    scales = [float(network.neuron(name).scale) for name in network.network.populations]
    assert scales == pytest.approx(limits)
    assert Run(out).recipe.make_method(None).surrogate == Triangle()
    ranges = {"trained_ranges": {"limit": 2.0}}
    with pytest.raises(ValueError, match="`trained_ranges` must be left out beside `code`, got"):
        Recipe.read(write(tmp_path / "c.yaml", content | ranges))


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"limit": 0}, "`limit` must be a positive number, got 0"),
        ({"limit": "4"}, "`limit` must be a positive number, got '4'"),
        ({"limit": True}, "`limit` must be a positive number, got True"),
        ({"limit": None}, "`trained_ranges` must have a `limit` without `start`, got"),
        ({"percentile": 0}, r"`percentile` must be a number in \(0, 100\], got 0"),
        ({"percentile": 99, "limit": 1}, "`percentile` must be alone, got 99. Limits start at"),
        ({"levels": 0, "limit": 1}, "`levels` must be at least 1, got 0"),
        ({"level": 2}, "`trained_ranges` must be a mapping of limit, percentile and levels, got"),
        (4.0, "`trained_ranges` must be a mapping of limit, percentile and levels, got 4.0"),
        ({"percentile": 99}, "`trained_ranges` must have a `limit` without `start`, got"),
    ],
)
def test_trained_ranges_are_checked(tmp_path: Path, ranges: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.read(write(tmp_path / "c.yaml", ANN | {"trained_ranges": ranges}))


def test_an_ann_starts_from_one_without_ranges_and_from_one_with_them(tmp_path: Path) -> None:
    """Limits begin at the activations, are carried on by the next link, and never get lost."""
    first = ANN | {"training": {"epochs": 1, "batch_size": 64}}
    run("train", "--recipe", write(tmp_path / "a.yaml", first), "--out", tmp_path / "a")
    second = first | {"start": str(tmp_path / "a")}
    second |= {"trained_ranges": {"percentile": 99, "levels": 2}}
    recipe = Recipe.read(write(tmp_path / "b.yaml", second))
    started = start_model(recipe, 0)
    relus = [m for m in started.modules() if isinstance(m, QuantizedReLU)]
    opened = Run(tmp_path / "a")
    images = opened.dataset("train").subset(1000).float_images()
    rule = Percentile(percentile=99)
    network = convert(opened.model, TTFS(2), calibration=images, normalization=rule)
    expected = [float(network.neuron(name).scale) for name in network.network.populations]
    assert [m.levels for m in relus] == [2] * len(expected)
    assert [float(m.limit.detach()) for m in relus] == pytest.approx(expected, rel=1e-4)
    run("train", "--recipe", recipe.source, "--out", tmp_path / "b")
    assert Run(tmp_path / "b").recipe.start == str(tmp_path / "a")
    trained = [p for n, p in Run(tmp_path / "b").trained_model().named_parameters() if "lim" in n]
    third = Recipe.read(write(tmp_path / "c.yaml", second | {"start": str(tmp_path / "b")}))
    carried = [p for n, p in start_model(third, 0).named_parameters() if "limit" in n]
    assert len(carried) == len(expected) and all(map(torch.equal, carried, trained))
    lost = first | {"start": str(tmp_path / "b")}
    other = lost | {"trained_ranges": {"limit": 5.0, "levels": 2}}
    with pytest.raises(ValueError, match=r"`trained_ranges` must begin as those of .*got .*5.0"):
        start_model(Recipe.read(write(tmp_path / "e.yaml", other)), 0)
    with pytest.raises(ValueError, match="`run_dir` must not be the run of `start`"):
        train(third, tmp_path / "b", restart=True)
    all_images = {"validate": False, "data": {"name": "mnist"}, "start": str(tmp_path / "e")}
    write(tmp_path / "e.yaml", first | {"validate": False})
    for name, content in (("e", first | {"validate": False}), ("f", first | all_images)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "config.yaml", content)
    with pytest.raises(ValueError, match="`validate` must be false, got true"):
        start_model(
            Recipe.read(write(tmp_path / "g.yaml", first | {"start": str(tmp_path / "f")})), 0
        )
    with pytest.raises(ValueError, match=r"`trained_ranges` must be given, got None: .*b has"):
        start_model(Recipe.read(write(tmp_path / "d.yaml", lost)), 0)


def test_an_ann_for_other_classes_starts_from_the_features(tmp_path: Path) -> None:
    ann = ANN | {"training": {"epochs": 1, "batch_size": 64}}
    run("train", "--recipe", write(tmp_path / "a.yaml", ann), "--out", tmp_path / "a")
    other = ann | {"model": ANN["model"] | {"classes": 7}, "start": str(tmp_path / "a")}
    recipe = Recipe.read(write(tmp_path / "b.yaml", other))
    given = Run(tmp_path / "a").model.state_dict()
    started, fresh = start_model(recipe, 3).state_dict(), recipe.build().state_dict()
    new = {name for name in started if started[name].shape != given[name].shape}
    assert new == set(list(fresh)[-2:]), "weight and bias of the last layer"
    assert all(torch.equal(started[name], given[name]) for name in set(started) - new)
    spiking = other | {"code": {"name": "TTFS", "window": 4}, "method": {"name": "QuantizerAware"}}
    with pytest.raises(ValueError, match="`start` must be a run of the recipe's model"):
        start_model(Recipe.read(write(tmp_path / "c.yaml", spiking)), 0)


def test_every_recipe_of_the_library_can_be_read() -> None:
    recipes = {name: Recipe.read(name) for name in recipe_names()}
    assert recipes["mnist_few_step"].code["name"] == "FewStep"
    for name, recipe in recipes.items():
        started = recipe.describe().get("start"), recipe.settings().get("start")
        assert started == (recipe.start, recipe.start), name
        if recipe.start is not None:
            made = recipes[Path(recipe.start).name]
            if recipe.code is not None or recipe.data == made.data:
                assert (made.model, made.data) == (recipe.model, recipe.data), name
            else:
                assert {**made.model, "classes": 100} == recipe.model, name


def test_a_start_without_a_recipe_beside_it_says_what_to_train(tmp_path: Path) -> None:
    path = write(tmp_path / "alone.yaml", RECIPE | {"start": "nowhere"})
    with pytest.raises(FileNotFoundError, match=r"none in nowhere.*ANN.yaml \(with model: .*0.25"):
        start_model(Recipe.read(path), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "has the unknown key 'methods'. Known: calibration, code"),
        ({"method": None}, "must have `method: {name: ...}` to train a spiking network"),
        ({"method": {"name": "Hope"}}, r"r.yaml: `method` must be one of .*QuantizerAware"),
        ({"method": {"name": "DTA", "luck": 1}}, "r.yaml: DTA cannot be made from"),
        ({"code": {"name": "Morse"}}, "r.yaml: `code` must be one of .*got 'Morse'"),
        ({"code": {"name": "TTFS", "windows": 4}}, "r.yaml: TTFS cannot be made from"),
        ({"calibration": "all"}, "r.yaml: `calibration` must be a number of images, got 'all'"),
        ({"validate": "no"}, "r.yaml: `validate` must be true or false, got .no"),
        ({"training": {"epoch": 3}}, "has no option 'epoch'"),
        ({}, "r.yaml: `teacher: true` must have a trained ANN to learn from, got no `start`"),
        (
            {"start": "runs/ann", "method": {"name": "Method", "teacher": True}},
            "r.yaml: `teacher` must go with a method that learns from one, got Method",
        ),
    ],
)
def test_bad_keys_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.read(write(tmp_path / "r.yaml", RECIPE | changes))


def test_ann_recipes_refuse_what_they_do_not_know(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"has the unknown key 'trainning'. Known: calibration"):
        Recipe.read(write(tmp_path / "r.yaml", ANN | {"trainning": {}}))
    with pytest.raises(ValueError, match="`--start` goes with recipes of spiking networks"):
        run("train", "--recipe", folder / "ann.yaml", "--start", "x", "--out", tmp_path / "o")


def test_of_several_processes_the_first_alone_writes(tmp_path: Path, monkeypatch) -> None:
    recipe = Recipe(**ANN, training={"epochs": 1, "batch_size": 256})
    monkeypatch.setenv("RANK", "1")
    run = train(recipe, tmp_path / "second", progress=False)
    assert not (run.folder / "result.json").exists()
    monkeypatch.setenv("RANK", "0")
    run = train(recipe, tmp_path / "first", progress=False)
    assert run.result is not None and run.result.split == "validation"
