"""A network of integers as one C file and its header: C99, no heap, no floats, no library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firstspike._version import __version__
from firstspike.engines import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.exchange.c_layers import Layers
from firstspike.exchange.c_layout import Layout, pixel_times
from firstspike.networks import INPUT


@dataclass(frozen=True)
class Source:
    """Text of both files and what the network takes.

    Attributes:
        prefix: of all public names.
        populations: names in the order of their numbers.
        unit: value of a logit of 1, in units of the ANN.
        flash, ram: bytes of constant tables and of static memory; code and stack come on top.
    """

    prefix: str
    source: str
    header: str
    populations: tuple[str, ...]
    unit: float
    flash: int
    ram: int


def frames_of(x: Tensor) -> Tensor:
    """Images in [0, 1] as pixels p = 0 ... 255, (N, ...) uint8; p stands for p / 255."""
    return (x.detach().cpu().double() * 255).round().clamp(0, 255).to(torch.uint8)


def images_of(frames: Tensor, network: SpikingNetwork) -> Tensor:
    """What the network sees for frames of pixels."""
    return (frames.float() / 255).to(network.input_low)


def write_source(network: SpikingNetwork, prefix: str, events: bool, golden: Tensor) -> Source:
    """Both texts for a network of `to_integers`.

    Args:
        prefix: of public names and the header's file name.
        events: layers with weights walk a queue of spikes.
        golden: frames (N, ...) uint8 that the self test runs.

    Raises:
        ValueError: naming the node and the rule, where C cannot hold the network.
    """
    prefix = re.sub(r"\W", "_", prefix)
    layout = Layout(network)
    encoder = _encoder(layout)
    layers = Layers(layout, events)
    graph = network.network
    output = layout.signals[graph.nodes[-1].inputs[0]]
    unit, factors = _logit_factors(network, layout)
    classes = output.size
    steps = [len(network.window_of(name)) for name in layers.populations]
    memory = [f"static {c} memory_{c}[{size}];" for c, size in sorted(layout.memory.items())]
    calls = [f"    {name}(spike);" for name in re.findall(r"layer_\d+", "".join(layers.functions))]
    run = f"""void {prefix}_run(const uint8_t *frame, int32_t *logits, {prefix}_spike spike)
{{
    const {output.ctype} *sums = {output.pointer};
    int32_t i;
    encode(frame, spike);
{chr(10).join(calls)}
    for (i = 0; i < {classes}; i++) logits[i] = (int32_t)sums[i]{factors};
}}

int32_t {prefix}_class(const int32_t *logits)
{{
    int32_t best = 0, i;
    for (i = 1; i < {classes}; i++) if (logits[i] > logits[best]) best = i;
    return best;
}}"""
    search = [_FIRST_STEP] if network.network.populations else []
    functions = [encoder, *search, *layers.functions, run]
    names = ", ".join(f'"{name}"' for name in layers.populations)
    mains = _MAINS.replace("NAMES", names).replace("STEPS", ", ".join(map(str, steps)))
    mains = mains.replace("GOLDEN", _golden(network, golden, layers.populations))
    tables = [_array(t.name, t.ctype, t.values) for t in layout.tables.values()]
    text = "\n".join(
        (
            f"/* {prefix}: {network.code}, written by firstspike {__version__}.",
            f" * Flash: {layout.flash:,} bytes of tables; RAM: {layout.ram:,} bytes; code and",
            " * stack come on top. C99 without heap, floating point and library; the mains are",
            f" * compiled with {prefix.upper()}_MAIN and {prefix.upper()}_SELF_TEST alone. */",
            f'#include "{prefix}.h"\n',
            *tables,
            "",
            *memory,
            "",
            *functions,
            mains,
        )
    )
    header = _HEADER.replace("CLASSES_", str(classes)).replace("UNIT_", f"2^{np.log2(unit):g}")
    header = header.replace("PIXELS_", str(int(np.prod(graph.input_shape))))
    header = header.replace("POPULATIONS_", str(len(layers.populations)))
    lines = [f"{i} = {n}, {s} steps" for i, (n, s) in enumerate(zip(layers.populations, steps))]
    header = header.replace("LIST_", "\n *   ".join(lines))
    return Source(
        prefix,
        text.replace("PREFIX_UPPER", prefix.upper()).replace("PREFIX", prefix),
        header.replace("PREFIX_UPPER", prefix.upper()).replace("PREFIX", prefix),
        tuple(layers.populations),
        unit,
        layout.flash,
        layout.ram,
    )


def _encoder(layout: Layout) -> str:
    """The function that turns pixels into spikes, by a table of 256 times (and values)."""
    network, node = layout.network, layout.graph.nodes[0]
    times = pixel_times(network)
    neuron = network.neuron(INPUT)
    values = neuron.values().reshape(len(neuron.values()), -1).T.numpy()  # type: ignore[operator]
    values = np.concatenate([values, np.zeros((len(values), 1), np.int64)], 1)
    rows = max(len(values), len(times) if times.ndim > 1 else 1)
    times = np.broadcast_to(times, (rows, 256))
    said = np.take_along_axis(np.broadcast_to(values, (rows, values.shape[1])), times, 1)
    layout.table("pixel_step", times)
    layout.table("pixel_value", said)
    signal = layout.allot(node, False)
    inner = signal.size // node.shape[0]
    place = "frame[n]" if rows == 1 else f"n / {inner} * 256 + frame[n]"
    return f"""/* pixels to spikes */
static void encode(const uint8_t *frame, PREFIX_spike spike)
{{
    {signal.ctype} *out = {signal.pointer};
    int32_t n;
    for (n = 0; n < {signal.size}; n++) {{
        out[n] = pixel_value[{place}];
        if (spike) spike(0, n, pixel_step[{place}]);
    }}
}}
"""


def _logit_factors(network: SpikingNetwork, layout: Layout) -> tuple[float, str]:
    """The unit of the logits, and what brings sums of every class to it."""
    op = network.network.op(network.network.output.name)
    scale = op.scale.detach().double().flatten()  # type: ignore[operator]
    unit = float(scale.min())
    factors = (scale / unit).round().long()
    bound = layout.bound[network.network.output.inputs[0]] * int(factors.max())
    if bound >= 2**31:
        raise ValueError(
            f"logits must fit 32 bits in the finest step of the classes, they may reach "
            f"{bound:,.0f}. Quantize with per_channel=False."
        )
    if bool((factors == 1).all()):
        return unit, ""
    return unit, f" * {layout.table('logit_factor', factors)}[i]"


def checksum(steps: Sequence[int]) -> int:
    """FNV-1a over the spike steps of a frame, in the order in which they are said."""
    found = 2166136261
    for step in steps:
        found = ((found ^ step) * 16777619) & 0xFFFFFFFF
    return found


def _golden(network: SpikingNetwork, frames: Tensor, populations: Sequence[str]) -> str:
    """Frames with the checksum of their spike steps and their class, by the closed form."""
    record = simulate(network, images_of(frames, network), "closed_form")
    sums = []
    for i in range(len(frames)):
        said = [
            torch.where(t.isfinite(), t, len(network.window_of(name))).flatten().long()
            for name, t in ((name, record.spike_times[name][i]) for name in populations)
        ]
        sums.append(checksum(torch.cat(said).tolist()))
    return "\n".join(
        (
            f"#define FRAMES {len(frames)}",
            _array("golden_frame", "uint8_t", frames.flatten().numpy().astype(np.int64)),
            _array("golden_sum", "uint32_t", np.array(sums, np.int64)),
            _array("golden_class", "int32_t", record.predictions.numpy().astype(np.int64)),
        )
    )


def _array(name: str, ctype: str, values: np.ndarray) -> str:
    suffix = "u" if ctype == "uint32_t" else ""
    text = [f"{v}{suffix}" if v != -(2**31) else "INT32_MIN" for v in values.tolist()]
    lines = [", ".join(text[i : i + 24]) for i in range(0, len(text), 24)]
    return f"static const {ctype} {name}[{len(text)}] = {{\n" + ",\n".join(lines) + "};"


_FIRST_STEP = """/* First step whose threshold u reaches, `steps` = never. Thresholds fall with the
 * step; they are ceil(threshold / 2^shift). */
static int32_t first_step(int32_t u, const int32_t *threshold, int32_t steps, int32_t shift)
{
    const int32_t rest = (int32_t)(UINT32_C(1) << shift) - 1;
    int32_t low = 0, high = steps;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (u >= (threshold[middle] + rest) >> shift) high = middle;
        else low = middle + 1;
    }
    return low;
}
"""

_HEADER = """/* Spiking network PREFIX; see PREFIX.c. Populations:
 *   LIST_ */
#ifndef PREFIX_UPPER_H
#define PREFIX_UPPER_H
#include <stdint.h>

#define PREFIX_UPPER_PIXELS PIXELS_
#define PREFIX_UPPER_CLASSES CLASSES_
#define PREFIX_UPPER_POPULATIONS POPULATIONS_

/* Called for every neuron: its population, its number, and the step of its spike within the
 * population's window (the number of steps: never). */
typedef void (*PREFIX_spike)(int32_t population, int32_t neuron, int32_t step);

/* One frame of pixels (a pixel p stands for p / 255; channels first) to logits in units of
 * UNIT_ . `spike` may be 0. Static memory is reused: one frame at a time. */
void PREFIX_run(const uint8_t *frame, int32_t *logits, PREFIX_spike spike);

/* The class of the largest logit. */
int32_t PREFIX_class(const int32_t *logits);

#endif
"""

_MAINS = """
#ifdef PREFIX_UPPER_MAIN
/* Frames from standard input; spike times (. = never), logits and class of each. */
#include <inttypes.h>
#include <stdio.h>

static const char *const names[] = {NAMES};
static const int32_t silent[] = {STEPS};
static int32_t said = -1;

static void print_spike(int32_t population, int32_t neuron, int32_t step)
{
    if (population != said) printf("%s%s", neuron == 0 && said < 0 ? "" : "\\n", names[population]);
    said = population;
    if (step == silent[population]) printf(" .");
    else printf(" %" PRId32, step);
}

int main(void)
{
    static uint8_t frame[PREFIX_UPPER_PIXELS];
    int32_t logits[PREFIX_UPPER_CLASSES], i;
    while (fread(frame, 1, sizeof frame, stdin) == sizeof frame) {
        said = -1;
        PREFIX_run(frame, logits, print_spike);
        printf("\\nlogits");
        for (i = 0; i < PREFIX_UPPER_CLASSES; i++) printf(" %" PRId32, logits[i]);
        printf("\\nclass %" PRId32 "\\n", PREFIX_class(logits));
    }
    return 0;
}
#endif

#ifdef PREFIX_UPPER_SELF_TEST
/* Golden vectors; returns how many differ. */
GOLDEN

static uint32_t sum;

static void add_spike(int32_t population, int32_t neuron, int32_t step)
{
    (void)population;
    (void)neuron;
    sum = (sum ^ (uint32_t)step) * UINT32_C(16777619);
}

int main(void)
{
    int32_t logits[PREFIX_UPPER_CLASSES], i, wrong = 0;
    for (i = 0; i < FRAMES; i++) {
        sum = UINT32_C(2166136261);
        PREFIX_run(golden_frame + i * PREFIX_UPPER_PIXELS, logits, add_spike);
        if (sum != golden_sum[i] || PREFIX_class(logits) != golden_class[i]) wrong++;
    }
    return (int)wrong;
}
#endif
"""
