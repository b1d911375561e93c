"""The viewer: its numbers are those of the engines, in the page, in node and in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.data import load_dataset
from firstspike.viewer import view
from firstspike.viewer.describe import describe_population, live_network, pack

SOURCE = Path(fs.__file__).parent / "viewer"
node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
browser = shutil.which("chromium") or shutil.which("google-chrome")
chromium = pytest.mark.skipif(browser is None, reason="no Chromium is installed")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AvgPool2d(2, 1, 1), nn.Conv2d(8, 6, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 10),
    )  # fmt: skip


def network(offset: int | None = None, kernel: fs.codes.Kernel | None = None) -> fs.SpikingNetwork:
    code = fs.TTFS(16, kernel or fs.kernels.Exponential(), offset=offset)
    images = load_dataset("digits", "train").float_images(torch.float64)[:300]
    return fs.convert(model().double().eval(), code, calibration=images)


def digits(count: int) -> Tensor:
    return load_dataset("digits", "train").float_images(torch.float64)[:count]


def data_of(page: str) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found.group(1))


def unpack(packed: dict) -> np.ndarray:
    kinds = {"u1": np.uint8, "u2": np.uint16, "f4": np.float32, "f8": np.float64}
    return np.frombuffer(base64.b64decode(packed["data"]), kinds[packed["kind"]])


def run_in_node(tmp_path: Path, body: str, data: dict) -> dict:
    (tmp_path / "data.json").write_text(json.dumps(data))
    (tmp_path / "run.js").write_text(
        f"const e = require({json.dumps(str(SOURCE / 'engine.js'))});\n"
        "const data = JSON.parse(require('fs').readFileSync(process.argv[2]));\n" + body
    )
    command = ["node", str(tmp_path / "run.js"), str(tmp_path / "data.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_in_chromium(tmp_path: Path, body: str, data: dict) -> dict:
    path = tmp_path / "run.html"
    path.write_text(
        f"<pre id='done'></pre><script>{(SOURCE / 'engine.js').read_text()}</script>"
        f"<script type='application/json' id='data'>{json.dumps(data)}</script><script>{{\n"
        "const e = {SpikingNetwork, settingsOf, decodeArray, decodeTimes};\n"
        "const data = JSON.parse(document.getElementById('data').textContent);\n"
        "const console = {log: (t) => { document.getElementById('done').textContent = t; }};\n"
        f"{body}}}</script>"
    )
    return in_the_browser(path)


def in_the_browser(path: Path) -> dict:
    """What the page at `path` leaves in its element "done"."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command = [browser, *options, f"--user-data-dir={path.parent}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"<pre id=\Sdone\S>(.+?)</pre>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    return json.loads(found.group(1))


ALL_TIMES = """
const net = new e.SpikingNetwork(data.live), x = e.decodeArray(data.images);
const size = x.length / data.count, settings = e.settingsOf(net.populations, {offset: data.offset});
const right = {};
for (const p of net.populations) right[p.name] = e.decodeTimes(data.times[p.name]);
let differing = 0, compared = 0, largest = 0;
for (let k = 0; k < data.count; k++) {
  const out = net.run(x.subarray(k * size, (k + 1) * size), settings);
  for (const p of net.populations) {
    const times = out.times[p.name], n = times.length;
    for (let i = 0; i < n; i++) if (times[i] !== right[p.name][k * n + i]) differing++;
    compared += n;
  }
  out.logits.forEach((v, c) => { largest = Math.max(largest, Math.abs(v - data.logits[k][c])); });
}
console.log(JSON.stringify({differing, compared, largest}));
"""


@pytest.mark.parametrize(
    ("where", "offset", "count"),
    [
        pytest.param(run_in_node, None, 50, marks=node),
        pytest.param(run_in_node, 8, 20, marks=node),
        pytest.param(run_in_node, None, 1000, marks=(node, pytest.mark.slow)),
        pytest.param(run_in_chromium, None, 1000, marks=(chromium, pytest.mark.slow)),
    ],
)
def test_spike_times_in_the_page_are_those_of_the_engines(
    tmp_path: Path, where: Callable[[Path, str, dict], dict], offset: int | None, count: int
) -> None:
    spiking = network(offset)
    images = digits(count)
    record = fs.simulate(spiking, images, "closed_form" if offset is None else "clock")
    data = {
        "live": live_network(spiking, 10**6),
        "images": pack(images),
        "count": count,
        "offset": spiking.code.shift,
        "times": {
            p: pack(t.masked_fill(t.isinf(), 65535).numpy().astype(np.uint16))
            for p, t in record.spike_times.items()
        },
        "logits": record.logits.tolist(),
    }
    found = where(tmp_path, ALL_TIMES, data)
    assert found["differing"] == 0
    assert found["compared"] == sum(t.numel() for t in record.spike_times.values())
    assert found["largest"] < 1e-9


CONTRIBUTIONS = """
const net = new e.SpikingNetwork(data.live), x = e.decodeArray(data.image);
const out = net.run(x, e.settingsOf(net.populations)), sums = [];
for (const [name, index] of data.asked) {
  const parts = net.contributions(name, index, out.delivered, Infinity);
  sums.push([parts.reduce((a, p) => a + p.value, 0), out.potentials[name][index]]);
}
const silent = {};
for (const [k, v] of Object.entries(out.delivered)) silent[k] = new Float64Array(v.length);
const zero = data.asked.map(([name, index]) => net.potential(name, silent)[index]);
console.log(JSON.stringify({sums, zero}));
"""


@node
def test_contributions_and_bias_add_up_to_the_potential(tmp_path: Path) -> None:
    """Exact for linear segments, and for max pools, whose largest input contributes."""
    spiking = network()
    asked = [(p, i) for p in spiking.network.populations for i in (0, 3, 11)]
    data = {"live": live_network(spiking, 10**6), "image": pack(digits(1)[0]), "asked": asked}
    found = run_in_node(tmp_path, CONTRIBUTIONS, data)
    for (added, potential), zero in zip(found["sums"], found["zero"]):
        assert added + zero == pytest.approx(potential, abs=1e-9)


def test_the_page_holds_what_the_engines_said() -> None:
    spiking, images = network().float(), digits(3).float()
    data = data_of(view(spiking, images, [4, 5, 6], title="</script><b>").page)
    record = fs.simulate(spiking, images, "closed_form", over_time=True)
    (run,) = data["runs"]
    for i, image in enumerate(run["images"]):
        assert not image["differing"]
        for name in spiking.populations:
            times = unpack(image["times"][name]).astype(float)
            times[times == 255] = np.inf
            assert np.array_equal(times, record.spike_times[name][i].flatten().numpy())
        race = unpack(image["race"]).reshape(run["latency"], -1)
        assert np.array_equal(race, record.logits_over_time[:, i].numpy())
    assert [image["label"] for image in data["images"]] == [4, 5, 6]
    assert "<b>" not in view(spiking, images, title="</script><b>").page.split("<main>")[1]
    assert "http" not in view(spiking, images).page.replace("http-equiv", "")


def test_several_networks_share_a_page_and_large_ones_do_not_run_there() -> None:
    spiking = network().float()
    page = view({"plain": spiking, "early": spiking.with_offset(8)}, digits(1).float()).page
    assert [run["title"] for run in data_of(page)["runs"]] == ["plain", "early"]
    assert data_of(page)["live"] is not None
    assert data_of(view(spiking, digits(1).float(), largest_live=10).page)["live"] is None


def test_tables_are_the_neurons_own() -> None:
    spiking = network(kernel=fs.kernels.Linear())
    described = describe_population(spiking, spiking.populations[1])
    thresholds, values = spiking.neuron(spiking.populations[1]).table()
    assert described["thresholds"] == thresholds.tolist() and described["values"] == values.tolist()
    assert described["kernel"] == {"name": "Linear"}


def test_other_codes_are_refused_with_a_way_on() -> None:
    spiking = fs.convert(model().eval(), fs.Rate(8), calibration=digits(20).float())
    with pytest.raises(ValueError, match=r"suit the page.*no threshold that falls.*plot_raster"):
        view(spiking, digits(2))
    with pytest.raises(ValueError, match="`images` must hold at least one sample"):
        view(network().float(), digits(0).float())


IN_THE_BROWSER = """
<script>
addEventListener("load", () => {
  const { state, page } = window.firstspike, out = {};
  const slider = document.getElementById("time");
  slider.value = 20; slider.dispatchEvent(new Event("input"));
  out.step = document.getElementById("step").textContent;
  const canvas = document.getElementById("network"), box = canvas.getBoundingClientRect();
  const at8 = {clientX: box.left + 8, clientY: box.top + 34, bubbles: true};
  canvas.dispatchEvent(new PointerEvent("pointermove", at8));
  out.neuron = document.querySelector("#neuron dd").textContent;
  const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  press("ArrowRight");
  for (let k = 0; k < 27; k++) press("ArrowDown");
  out.next = document.querySelector("#neuron dd").textContent;
  out.inputs = document.querySelectorAll("#neuron li").length;
  const image = document.getElementById("image"), at = image.getBoundingClientRect();
  image.setPointerCapture = () => {};
  const point = (kind, x, y) => image.dispatchEvent(new PointerEvent(kind, {
    clientX: at.left + at.width * x, clientY: at.top + at.height * y, bubbles: true, pointerId: 1,
  }));
  point("pointerdown", 0.5, 0.1);
  for (let y = 0.1; y < 0.95; y += 0.05) point("pointermove", 0.5, y);
  point("pointerup", 0.5, 0.95);
  out.answer = document.getElementById("answer").textContent;
  out.drawn = Math.max(...state.drawn);
  const times = performance.now();
  for (let k = 0; k < 30; k++) { slider.value = k; slider.dispatchEvent(new Event("input")); }
  out.milliseconds = (performance.now() - times) / 30;
  const done = document.createElement("pre");
  done.id = "done"; done.textContent = JSON.stringify(out); document.body.append(done);
});
</script>
"""


@pytest.mark.slow
@chromium
def test_slider_hover_keys_and_drawing_in_a_browser(tmp_path: Path) -> None:
    page = view(network().float(), digits(2).float(), [0, 1]).page
    path = tmp_path / "view.html"
    path.write_text(page.replace("</body>", IN_THE_BROWSER + "</body>"))
    out = in_the_browser(path)
    assert out["step"].startswith("20 / ")
    assert out["neuron"].startswith("input [0, ")
    assert out["next"].startswith(network().populations[1]) and out["inputs"] > 0
    assert re.match(r"The spikes say \d\.", out["answer"]) and out["drawn"] == 1.0
