"""Every layer of a network of integers as one C function."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from firstspike.codes.integers import IntegerNeuron
from firstspike.exchange.c_layout import Layout, Signal, thresholds_of
from firstspike.networks import INPUT, Node
from firstspike.networks.ops import (
    Add,
    Affine,
    Concatenate,
    Convolution,
    Dense,
    MaxPool,
    Op,
    Rectifier,
    Reshape,
    TransposedConvolution,
    WeightOp,
)
from firstspike.networks.ops.pools import Windows, per_axis


class Layers:
    """Writes the functions in order of execution.

    Args:
        events: layers with weights walk a queue of spikes instead of all weights.

    Attributes:
        functions: C text, one per layer.
        populations: the populations' names in the order of their numbers, the input first.
    """

    def __init__(self, layout: Layout, events: bool) -> None:
        self.layout, self.events, self.graph = layout, events, layout.graph
        self._at = self.graph.nodes[0]
        self.functions: list[str] = []
        self.populations = [INPUT, *self.graph.populations]
        for node in self.graph.nodes[1:-1]:
            below = layout.fused.get(node.name)
            if node.name not in layout.fused.values():
                self._write(self.graph.node[below or node.name], node)

    def _write(self, node: Node, at: Node) -> None:
        """The function of `node`, which runs in the place of `at`: itself, or a population."""
        op = self.graph.op(node.name)
        if isinstance(op, Reshape):
            self.layout.alias(node)
            return
        inputs = [self.layout.signals[name] for name in node.inputs]
        population = at if self.graph.is_population(at.name) else None
        self._at = at
        if isinstance(op, Rectifier):
            body, over = self._each("u = a0[n];"), inputs[0].over
        else:
            body, over = self._body(node, op, inputs)
        store, signal = self._store(node, population, over, op, inputs)
        self._function(node, population, inputs, store, signal, body)

    # ---- what is computed -----------------------------------------------------------------------
    def _body(self, node: Node, op: Op, inputs: list[Signal]) -> tuple[str, int]:
        """Loops with `u` for the neuron `n` and `STORE` in them; what sums are divided by."""
        if isinstance(op, Affine):
            return self._affine(node, op, inputs[0].over), 1
        if any(signal.over != 1 for signal in inputs):
            raise ValueError(
                f"node {node.name!r} takes averages that are not sums; only networks of "
                "`to_integers` are written in C. Make one first."
            )
        if isinstance(op, Convolution) and op.weight.ndim == 4 and _plain(op):
            return (self._scatter if self.events else self._convolve)(node, op, inputs[0]), 1
        if isinstance(op, Dense) and len(node.shape) == 1:
            return (self._scatter if self.events else self._dense)(node, op, inputs[0]), 1
        if isinstance(op, Add):
            terms = [f"{int(c)} * (int32_t)a{i}[n]" for i, c in enumerate(op.hyper["coefficients"])]
            return self._each(f"u = {' + '.join(terms)};"), 1
        if isinstance(op, Windows) and op.hyper["dims"] == 2:
            return self._windows(node, op)
        if isinstance(op, Concatenate) and op.hyper["dim"] == 1:
            return self._join(inputs), 1
        if isinstance(op, WeightOp):
            return self._links(node, op)
        raise ValueError(
            f"node {node.name!r} ({type(op).__name__}) has no C form. Use two-dimensional pools."
        )

    def _each(self, statement: str) -> str:
        return f"for (n = 0; n < SIZE; n++) {{\n    {statement}\n    STORE\n}}"

    def _affine(self, node: Node, op: Affine, over: int) -> str:
        scale = torch.ones(()) if op.scale is None else op.scale.detach() / over
        if not torch.equal(scale, scale.round()):
            raise ValueError(
                f"node {node.name!r} must scale by integers to be written in C. "
                "Make the network with `to_integers`."
            )
        text = f"{self._broadcast(node, 'scale', scale)} * (int32_t)a0[n]"
        if op.shift is not None:
            text += f" + {self._broadcast(node, 'shift', op.shift.detach())}"
        return self._each(f"u = {text};")

    def _broadcast(self, node: Node, kind: str, tensor: Tensor) -> str:
        """A tensor that broadcasts with the node, at the neuron `n`."""
        if tensor.numel() == 1:
            return f"({int(tensor)})"
        size = int(np.prod(node.shape))
        if tensor.numel() != node.shape[0] or tensor.ndim != len(node.shape):
            tensor = tensor.expand(node.shape)
        inner = size // tensor.numel()
        name = self.layout.table(f"{kind}_{self._number(node)}", tensor)
        return f"{name}[n / {inner}]" if inner > 1 else f"{name}[n]"

    def _bias(self, node: Node, op: Convolution | Dense, channel: str) -> str:
        if op.bias is None or not bool(op.bias.any()):
            return "0"
        return f"{self.layout.table(f'bias_{self._number(node)}', op.bias.detach())}[{channel}]"

    def _dense(self, node: Node, op: Dense, source: Signal) -> str:
        weight = self.layout.table(f"weight_{self._number(node)}", op.weight.detach())
        return f"""for (n = 0; n < SIZE; n++) {{
    u = {self._bias(node, op, "n")};
    for (i = 0; i < {source.size}; i++)
        u += (int32_t){weight}[n * {source.size} + i] * a0[i];
    STORE
}}"""

    def _convolve(self, node: Node, op: Convolution, source: Signal) -> str:
        weight = self.layout.table(f"weight_{self._number(node)}", op.weight.detach())
        (rows, columns), (sy, sx), (py, px), (dy, dx), (groups,) = _geometry(op)
        height, width = self.graph.node[node.inputs[0]].shape[1:]
        channels, out_rows, out_columns = node.shape
        each = op.weight.shape[1]
        first = f"c / {channels // groups} * {each}" if groups > 1 else "0"
        skip_row = f"if (row < 0 || row >= {height}) continue;" if py else ""
        skip_column = f"if (column < 0 || column >= {width}) continue;" if px else ""
        return f"""n = 0;
for (c = 0; c < {channels}; c++)
for (y = 0; y < {out_rows}; y++)
for (x = 0; x < {out_columns}; x++, n++) {{
    u = {self._bias(node, op, "c")};
    for (i = 0; i < {each}; i++)
    for (ky = 0; ky < {rows}; ky++) {{
        const int32_t row = y * {sy} + ky * {dy} - {py};
        {skip_row}
        for (kx = 0; kx < {columns}; kx++) {{
            const int32_t column = x * {sx} + kx * {dx} - {px};
            {skip_column}
            u += (int32_t){weight}[((c * {each} + i) * {rows} + ky) * {columns} + kx]
                * a0[(({first} + i) * {height} + row) * {width} + column];
        }}
    }}
    STORE
}}"""

    def _scatter(self, node: Node, op: Convolution | Dense, source: Signal) -> str:
        """A queue of the spikes that came; each adds a row of weights to the sums of its targets.

        Sums lie position by position, so that a row is one run through memory.
        """
        weight4 = op.weight.detach()
        shape_in, shape_out = self.graph.node[node.inputs[0]].shape, node.shape
        if isinstance(op, Dense):
            weight4 = weight4[:, :, None, None]
            shape_in, shape_out = (source.size, 1, 1), (*shape_out, 1, 1)
            geometry: tuple[tuple[int, ...], ...] = ((1, 1), (1, 1), (0, 0), (1, 1), (1,))
        else:
            geometry = _geometry(op)
        (rows, columns), (sy, sx), (py, px), (dy, dx), (groups,) = geometry
        channels, out_rows, out_columns = shape_out
        per_group, each = channels // groups, weight4.shape[1]
        laid = weight4.reshape(groups, per_group, each, rows, columns).permute(0, 2, 3, 4, 1)
        weight = self.layout.table(f"weight_{self._number(node)}", laid)
        size = channels * out_rows * out_columns
        sums = self.layout.scratch(self._at, "int32_t", size)
        ctype = "uint16_t" if source.size <= 2**16 else "int32_t"
        queue = self.layout.scratch(self._at, ctype, source.size)
        group = f"(c / {each}) * {per_group}" if groups > 1 else "0"
        guards = [
            f"{name} < 0 || {name} >= {size * stride}"
            + (f" || {name} % {stride} != 0" if stride > 1 else "")
            for name, size, stride in (("row", out_rows, sy), ("column", out_columns, sx))
        ]
        return f"""int32_t *sum = {sums};
{ctype} *queue = {queue};
int32_t waiting = 0, e, o;
for (i = 0; i < {source.size}; i++)
    if (a0[i] != 0) queue[waiting++] = ({ctype})i;
for (i = 0; i < {size}; i++) {{ c = i % {channels}; sum[i] = {self._bias(node, op, "c")}; }}
for (e = 0; e < waiting; e++) {{
    const int32_t value = a0[queue[e]];
    c = queue[e] / {shape_in[1] * shape_in[2]};
    y = queue[e] / {shape_in[2]} % {shape_in[1]};
    x = queue[e] % {shape_in[2]};
    for (ky = 0; ky < {rows}; ky++) {{
        const int32_t row = y + {py} - ky * {dy};
        if ({guards[0]}) continue;
        for (kx = 0; kx < {columns}; kx++) {{
            const int32_t column = x + {px} - kx * {dx};
            if ({guards[1]}) continue;
            for (o = 0; o < {per_group}; o++)
                sum[(row / {sy} * {out_columns} + column / {sx}) * {channels} + {group} + o]
                    += value * {weight}[((c * {rows} + ky) * {columns} + kx) * {per_group} + o];
        }}
    }}
}}
for (n = 0; n < SIZE; n++) {{
    u = sum[n % {out_rows * out_columns} * {channels} + n / {out_rows * out_columns}];
    STORE
}}"""

    def _join(self, inputs: list[Signal]) -> str:
        parts, start = [], 0
        for i, signal in enumerate(inputs):
            head = f"for (n = {start}; n < {start + signal.size}; n++)"
            parts.append(f"{head} {{\n    u = a{i}[n - {start}];\n    STORE\n}}")
            start += signal.size
        return "\n".join(parts)

    def _windows(self, node: Node, op: Windows) -> tuple[str, int]:
        shape = self.graph.node[node.inputs[0]].shape
        names = []
        for axis, label in ((-2, "rows"), (-1, "columns")):
            members = [row.nonzero().flatten() for row in (op.shares(axis, shape[axis]).T > 0)]
            gaps = {int(gap) for member in members for gap in member.diff()}
            step = max(gaps, default=1)
            ends = torch.tensor([[int(m[0]), int(m[-1]) + 1, step] for m in members])
            names.append(self.layout.table(f"{label}_{self._number(node)}", ends))
        rows, columns = names
        maximum = isinstance(op, MaxPool)
        update = "if (v > u) u = v;" if maximum else "u += v;"
        over = 1
        if not maximum:
            over = round(1 / float(op.shares(-2, shape[1]).max() * op.shares(-1, shape[2]).max()))
        body = f"""n = 0;
for (c = 0; c < {node.shape[0]}; c++)
for (y = 0; y < {node.shape[1]}; y++)
for (x = 0; x < {node.shape[2]}; x++, n++) {{
    u = {"INT32_MIN" if maximum else "0"};
    for (ky = {rows}[3 * y]; ky < {rows}[3 * y + 1]; ky += {rows}[3 * y + 2])
    for (kx = {columns}[3 * x]; kx < {columns}[3 * x + 1]; kx += {columns}[3 * x + 2]) {{
        const int32_t v = a0[(c * {shape[1]} + ky) * {shape[2]} + kx];
        {update}
    }}
    STORE
}}"""
        return body, over

    def _links(self, node: Node, op: WeightOp) -> tuple[str, int]:
        """Any other linear operation: for every neuron the list of what reaches it."""
        number, shapes = self._number(node), [self.graph.node[i].shape for i in node.inputs]
        links = op.links(*shapes)
        size = int(np.prod(node.shape))
        weights = torch.cat([link.weight for link in links])
        over = round(1 / float(weights.abs().min())) if 0 < float(weights.abs().min()) < 1 else 1
        like = next((t for t in op.parameters()), weights)
        with torch.no_grad():
            bias = op(*(like.new_zeros(1, *shape) for shape in shapes))
        text = "u = 0;"
        if bool(bias.any()):
            text = f"u = {self.layout.table(f'bias_{number}', bias)}[n];"
        for i, link in enumerate(links):
            order = link.target.argsort(stable=True)
            starts = torch.searchsorted(link.target[order], torch.arange(size + 1))
            start = self.layout.table(f"start_{number}_{i}", starts)
            source = self.layout.table(f"source_{number}_{i}", link.source[order])
            factor, scaled = "", (link.weight[order] * over).round()
            if bool((scaled != 1).any()):
                factor = f"{self.layout.table(f'weight_{number}_{i}', scaled)}[i] * (int32_t)"
            text += f"\n    for (i = {start}[n]; i < {start}[n + 1]; i++)"
            text += f" u += {factor}a{i}[{source}[i]];"
        return self._each(text), over

    # ---- where it goes --------------------------------------------------------------------------
    def _number(self, node: Node) -> int:
        return self.graph.nodes.index(node)

    def _store(
        self, node: Node, population: Node | None, over: int, op: Op, inputs: list[Signal]
    ) -> tuple[str, Signal]:
        """The statement that takes the sum `u` of the neuron `n`, and what it fills: sums, or the
        spikes of a population by way of its thresholds.
        """
        if population is None:
            passes = isinstance(op, Windows | Concatenate) and all(
                signal.ctype.startswith("u") for signal in inputs
            )
            signal = self.layout.allot(node, not passes, over)
            return f"out[n] = ({signal.ctype})u;", signal
        if over != 1:
            raise ValueError(
                f"population {population.name!r} takes averages that are no sums. "
                "Make the network with `to_integers`."
            )
        name, number = population.name, self.populations.index(population.name)
        neuron = self.layout.network.neuron(name)
        assert isinstance(neuron, IntegerNeuron)
        found = thresholds_of(name, neuron, population.shape)
        levels = self.layout.table(f"thresholds_{number}", found.common, "int32_t")
        inner = int(np.prod(population.shape)) // population.shape[0]
        channel = f"n / {inner}" if inner > 1 else "n"
        shift = "0"
        if found.shifts is not None and (found.shifts == found.shifts[0]).all():
            shift = str(int(found.shifts[0]))
        elif found.shifts is not None:
            shift = f"{self.layout.table(f'shifts_{number}', found.shifts)}[{channel}]"
        silent = np.zeros((*found.values.shape[:-1], 1), np.int64)
        table = np.concatenate([found.values.reshape(*silent.shape[:-1], -1), silent], -1)
        values = self.layout.table(f"values_{number}", table)
        row = f"({channel}) * {found.steps + 1} + " if table.ndim > 1 else ""
        signal = self.layout.allot(population, False)
        store = (
            f"t = first_step(u, {levels}, {found.steps}, {shift});\n"
            f"out[n] = ({signal.ctype}){values}[{row}t];\n"
            f"if (spike) spike({number}, n, t);"
        )
        return store, signal

    def _function(
        self,
        node: Node,
        population: Node | None,
        inputs: list[Signal],
        store: str,
        signal: Signal,
        body: str,
    ) -> None:
        counters = [v for v in ("n", "i", "c", "y", "x", "ky", "kx") if f"{v} = " in body]
        lines = [f"    const {s.ctype} *a{i} = {s.pointer};" for i, s in enumerate(inputs)]
        lines.append(f"    {signal.ctype} *out = {signal.pointer};")
        lines.append(f"    int32_t u, {', '.join(counters)}{', t' if population else ''};")
        lines += [] if population else ["    (void)spike;"]
        filled = []
        for line in body.replace("SIZE", str(signal.size)).splitlines():
            indent = line[: len(line) - len(line.lstrip())]
            if line.strip() == "STORE":
                filled += [indent + part for part in store.splitlines()]
            elif line.strip():
                filled.append(line)
        sources = " and ".join(node.inputs)
        title = f"{node.name}: {_by(node.shape)} from {sources}"
        title += f", into population {population.name}" if population else ""
        self.functions.append(
            f"/* {title} */\nstatic void layer_{self._number(node)}(PREFIX_spike spike)\n{{\n"
            + "\n".join([*lines, *(f"    {line}" for line in filled)])
            + "\n}\n"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _plain(op: Convolution) -> bool:
    """Whether the loops for convolutions hold: not transposed, padding in numbers."""
    padding = op.hyper.get("padding", 0)
    return not isinstance(op, TransposedConvolution) and not isinstance(padding, str)


def _geometry(op: Convolution) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation by axis, and the number of groups as (g,)."""
    found = (
        per_axis(op.hyper.get(name, default), 2)
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    return (tuple(op.weight.shape[2:]), *found, (int(op.hyper.get("groups", 1)),))
