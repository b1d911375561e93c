"""The command line: what it prints, what it writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import firstspike as fs
from firstspike.cli import main
from firstspike.cli.app import app
from firstspike.measure.result import read_results
from firstspike.runs import Run


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an ANN trained for two epochs and its spiking network."""
    folder = tmp_path_factory.mktemp("run")
    run(
        "train",
        "--model",
        "digits_cnn",
        "--data",
        "digits",
        "--epochs",
        2,
        "--out",
        folder,
        "--learning-rate",
        0.003,
        "--threads",
        1,
    )
    run("convert", folder, "--code", "TTFS(8, kernel=Linear())", "--calibration", 200)
    return folder


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = (
        "import sys, firstspike.cli.app\n"
        "heavy = {'torch', 'numba', 'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "verb", ["demo", "train", "convert", "evaluate", "compare", "hardware", "report"]
)
def test_every_verb_has_an_example_and_the_common_options(verb: str) -> None:
    text = run(verb, "--help")
    assert "Example: firstspike" in " ".join(text.split())
    assert all(option in text for option in ("--json", "--seed", "--device"))


def test_train_writes_a_run_and_resumes(trained: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "model.safetensors", "metrics.jsonl"):
        assert (trained / name).is_file()
    before = (trained / "metrics.jsonl").read_text()
    run(
        "train",
        "--recipe",
        trained / "config.yaml",
        "--out",
        trained,
        "--json",
        tmp_path / "ann.json",
        "--threads",
        1,
    )
    assert (trained / "metrics.jsonl").read_text() == before, "a finished run trains no more"
    (result,) = read_results(tmp_path / "ann.json")
    assert result.code == {"name": "ANN"} and result.split == "validation"


def test_evaluate_prints_and_writes_the_same_result(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    text = run("evaluate", trained, "--json", file, "--samples", 100)
    (result,) = read_results(file)
    assert result.samples == 100 and result.split == "validation" and result.dataset == "digits"
    assert f"{100 * result.accuracy:.2f}" in text
    assert result.latency_steps == 4 * 8  # depth 3: (3 + 1) windows of 8
    assert fs.Result.from_json(trained / "result.json") == result  # kept with the run
    assert json.loads(file.read_text())["code"]["kernel"]["name"] == "Linear"


def test_disturbances_are_measured_printed_and_drawn(trained: Path, tmp_path: Path) -> None:
    file, figure = tmp_path / "result.json", tmp_path / "curves.svg"
    arguments = ("--perturb", "jitter=0,2", "--perturb", "bits=2,8", "--figure", figure)
    text = run("evaluate", trained, "--samples", 100, "--json", file, *arguments)
    (result,) = read_results(file)
    assert result.robustness is not None and list(result.robustness) == ["jitter", "bits"]
    calm, jittered = result.robustness["jitter"]
    assert calm.lowest == calm.highest == result.accuracy > jittered.mean
    assert f"{100 * jittered.lowest:.2f}" in text and "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--perturb", "rain=1"], "`--perturb` must be NAME=V1,V2.*jitter, .*, got 'rain=1'"),
        (["--perturb", "jitter"], "`--perturb` must be NAME=V1,V2.*, got 'jitter'"),
        (["--perturb", "jitter=0,much"], "`--perturb jitter=0,much` cannot be .*'much'"),
        (["--perturb", "bits=2.5"], "`--perturb bits=2.5` cannot be measured: .*'2.5'"),
        (["--perturb", "deletion=2"], r"`--perturb deletion=2` .*must lie in \[0, 1\], got 2.0"),
        (["--perturb", "jitter=inf"], "`--perturb jitter=inf` .*`jitter` must be finite"),
        (["--figure", "x.svg"], "`--figure` draws the curves of `--perturb`, which is missing"),
        (["--perturb", "jitter=0", "--figure", "x.doc"], "`--figure` must end in .svg, .png"),
    ],
)
def test_bad_disturbances_name_the_option(
    trained: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run("evaluate", trained, *arguments)


def test_an_untrained_relpsp_network_says_what_it_lacks(trained: Path, tmp_path: Path) -> None:
    model, images = Run(trained).model, Run(trained).dataset("train")
    network = fs.convert(model, fs.ReLPSP(), calibration=images.subset(200))
    assert any("method DTA" in note for note in network.notes)
    network.save(tmp_path / "network.safetensors")
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--data", "digits"])
    assert "note: ReL-PSP neurons divide by 1 + W" in " ".join(result.output.split())


def test_codes_without_a_closed_form_cannot_be_disturbed(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "early.safetensors"
    run("convert", trained, "--code", "TTFS(8, offset=4)", "--calibration", 100, "--out", file)
    with pytest.raises(ValueError, match="`--perturb` must go with a code that has a closed form"):
        run("evaluate", file, "--data", "digits", "--perturb", "jitter=1")


def test_engines_give_the_same_result(trained: Path, tmp_path: Path) -> None:
    for engine in ("closed_form", "clock"):
        run(
            "evaluate",
            trained,
            "--engine",
            engine,
            "--samples",
            60,
            "--json",
            tmp_path / f"{engine}.json",
        )
    a, b = (read_results(tmp_path / f"{e}.json")[0] for e in ("closed_form", "clock"))
    assert a.accuracy_over_time == b.accuracy_over_time
    assert a.spikes_per_sample == b.spikes_per_sample


def test_the_test_split_is_read_only_when_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    dataset = Run.dataset

    def noted(self: Run, split: str, *rest: object) -> object:
        read.append(split)
        return dataset(self, split, *rest)

    monkeypatch.setattr(Run, "dataset", noted)
    few = ("--samples", 2)
    run("evaluate", trained, *few)
    run("hardware", "--network", trained, *few)
    run("view", trained, *few, "--out", tmp_path / "view.html")
    door = ("--to", "pretrained", "--out", tmp_path / "door")
    run("export", trained, *door, *few)
    assert "validation" in read and "test" not in read
    run("export", trained, *door, *few, "--split", "test")
    assert read[-1] == "test"


def test_report_is_one_page_that_needs_nothing_else(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    run("report", trained, "--out", page, "--samples", 50)
    html = page.read_text()
    assert "<html" in html and 'src="http' not in html and "<script src" not in html
    assert html.count("<figure") >= 4


def test_compare_measures_every_code_once(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare"
    codes = ("--code", "TTFS", "--code", "Rate(8)")
    arguments = ("compare", "--model", trained, *codes, "--samples", 20)
    first = run(*arguments, "--calibration", 100, "--out", out)
    results = read_results(out / "compare.json")
    assert {r.code["name"] for r in results} == {"TTFS", "Rate"} and "TN" in first
    assert len(list((out / "results").iterdir())) == len(results)
    before = {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()}
    run(*arguments, "--calibration", 100, "--out", out)
    assert {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()} == before
    assert "<figure" in (out / "report.html").read_text()
    assert [r for r in results if r.code["name"] == "Rate"] == [results[-1]]
    with pytest.raises(ValueError, match=r"`code` must be one of .*TTFS, .*got 'Morse'"):
        run("compare", "--model", trained, "--code", "TTFS", "--code", "Morse")
    with pytest.raises(ValueError, match=r"`--code` must give something to compare, got .*ReLPSP"):
        run("compare", "--model", trained, "--code", "ReLPSP")


@pytest.mark.slow
def test_demo_trains_converts_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from firstspike import demo

    monkeypatch.setattr(demo, "RECIPE", demo.RECIPE.with_training(epochs=1))
    text = run("demo", "--out", tmp_path)
    assert "0 of 640,000 neurons differ" in text and (tmp_path / "report.html").is_file()
    assert len(read_results(tmp_path / "result.json")) == 4


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--model", "digits_cnn"], ["--data"]),
        (["train", "--recipe", "nowhere.yaml"], ["nowhere.yaml"]),
        (["train", "--model", "vgg99", "--data", "digits"], ["vgg99", "mnist_cnn"]),
        (["train", "--model", "digits_cnn", "--data", "cats"], ["cats", "digits"]),
        (["convert", "nowhere"], ["nowhere"]),
        (["evaluate", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["evaluate", "nowhere", "--device", "toaster"], ["--device", "toaster"]),
    ],
)
def test_bad_arguments_end_with_one_clear_line(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["firstspike", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("firstspike: error: ") and "Traceback" not in error
    assert all(part in error for part in parts), error


def test_bad_codes_say_what_is_wrong_and_where(trained: Path) -> None:
    with pytest.raises(ValueError, match=r"at column 17: `kernel` must be one of .*got 'Liner'"):
        run("convert", trained, "--code", "TTFS(16, kernel=Liner())")
    with pytest.raises(ValueError, match=r"`offset` must be at most the window \(8\), got 9"):
        run("convert", trained, "--code", "TTFS(8, offset=9)")
    with pytest.raises(ValueError, match=r"`normalization` .* Percentile cannot be made from"):
        run("convert", trained, "--normalization", "Percentile(99, dots=3)")


@pytest.mark.slow
def test_convert_takes_an_input_window_and_scales_of_least_error(
    trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "network.safetensors"
    code = "TTFS(3, kernel=Learned(), input_window=12)"
    scales = "LeastError(per_channel=True)"
    options = ("--calibration", 100, "--out", file)
    run("convert", trained, "--code", code, "--normalization", scales, *options)
    network = fs.SpikingNetwork.load(file)
    assert (len(network.window_of("input")), network.code.window) == (12, 3)
    assert network.origin["normalization"]["name"] == "LeastError"
    assert network.neuron(network.network.populations[0]).scale.numel() > 1


@pytest.mark.parametrize("code", ["Rate(8)", "FewStep(2)", "Reverse(window=8)"])
def test_convert_makes_every_code(trained: Path, tmp_path: Path, code: str) -> None:
    file = tmp_path / "network.safetensors"
    options = ("--calibration", 100, "--check", 50, "--out", file)
    text = run("convert", trained, "--code", code, *options)
    assert fs.SpikingNetwork.load(file).code.name in text and str(file) in text


PLUGIN = """
from dataclasses import dataclass
import torch
import firstspike as fs
from firstspike.codes.kernels import FunctionKernel, Kernel
from firstspike.config import register

@register
@dataclass(frozen=True)
class Cubic(Kernel):
    def build(self, window, distribution):
        return CubicKernel(window)

class CubicKernel(FunctionKernel):
    def __init__(self, window):
        super().__init__()
        self.register_buffer("window", torch.tensor(float(window)))
    def value(self, t):
        return ((self.window - t) / self.window) ** 3
"""


@pytest.mark.slow
def test_a_kernel_in_a_file_of_ones_own_is_known_to_every_verb(
    trained: Path, tmp_path: Path
) -> None:
    plugin, file = tmp_path / "mine.py", tmp_path / "network.safetensors"
    plugin.write_text(PLUGIN)
    options = ("--calibration", 100, "--out", file)
    code = ("--code", "TTFS(8, kernel=Cubic())")
    with pytest.raises(ValueError, match=r"got 'Cubic'.*pass `--plugin FILE`"):
        run("convert", trained, *code, *options)
    run("convert", trained, *code, *options, "--plugin", plugin)
    run("evaluate", file, "--data", "digits", "--samples", 20, "--plugin", plugin)
    lines = f"from firstspike import SpikingNetwork\nSpikingNetwork.load({str(file)!r})\n"
    loaded = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert "`kernel` must be one of" in loaded.stderr and "'Cubic'" in loaded.stderr
    assert "--plugin" in loaded.stderr and "damaged" not in loaded.stderr
    with pytest.raises(OSError, match="`--plugin` must be a Python file, there is none at"):
        run("evaluate", file, "--plugin", tmp_path / "nothing.py")
    (tmp_path / "broken.py").write_text("import firstspike\n1 / 0\n")
    with pytest.raises(ImportError, match=r"broken\.py cannot be imported .ZeroDivisionError"):
        run("evaluate", file, "--plugin", tmp_path / "broken.py")


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "firstspike", "--version"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == fs.__version__


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("train", "mnist_cnn"),
        ("convert", "LeastError"),
        ("compare", "TemporalSwitch"),
        ("hardware", "canmore22"),
    ],
)
def test_names_are_listed_without_any_other_argument(verb: str, names: str) -> None:
    assert names in run(verb, "--list")


def test_recipes_are_known_by_name() -> None:
    assert fs.Recipe.read("digits_cnn").model["name"] == "digits_cnn"
    with pytest.raises(FileNotFoundError, match="neither a file nor a recipe digits_cnnn"):
        fs.Recipe.read("digits_cnnn")
