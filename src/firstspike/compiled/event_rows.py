"""Inner loops of the event-driven engine as vector instructions.

A loop of numba's own keeps its accumulators in memory, because arrays may overlap, and cannot fetch
ahead; written out as LLVM instructions the same loop takes a third of the time. LLVM splits the
64-byte vectors on machines whose registers are shorter.

numba's cache follows the file of the compiled functions alone: after a change here, touch
`event_loops.py`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 24  # events whose weights are being fetched while one is added
_VECTOR = 64  # bytes, also of a cache line
_INT, _LONG = ir.IntType(32), ir.IntType(64)


def rows_of(width: int) -> Any:
    """The function for rows of `width` weights, a multiple of 16.

    It does `out[at : at + width] += value[k] * weights[base + index[k] * width : ...]` for
    k = first ... last - 1, in this order. Weights are of the type of `out`, or bfloat16 as uint16,
    or int8. `index` must hold `AHEAD` further entries, whatever they are.
    """

    @intrinsic
    def add_rows(typingctx, out, at, weights, base, index, value, first, last):
        def generate(context, builder, signature, arguments):
            kinds = signature.args
            data = {
                i: context.make_array(kinds[i])(context, builder, arguments[i]).data
                for i in (0, 2, 4, 5)
            }
            rows = _Rows(builder, width, context.get_value_type(kinds[0].dtype), kinds[2].dtype)
            rows.add(
                data[0], arguments[1], data[2], arguments[3], (data[4], data[5]), arguments[6:]
            )
            return context.get_dummy_value()

        return types.void(out, at, weights, base, index, value, first, last), generate

    return add_rows


@intrinsic
def reaching(typingctx, u, at, factor, channel, threshold):
    """Bit c of the result: whether `u[at + c] * factor[channel + c] >= threshold`, c = 0 ... 15."""

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        vector = ir.VectorType(context.get_value_type(kinds[0].dtype), 16)
        size = kinds[0].dtype.bitwidth // 8
        loaded = []
        for i in (0, 2):
            data = context.make_array(kinds[i])(context, builder, arguments[i]).data
            address = builder.bitcast(builder.gep(data, [arguments[i + 1]]), vector.as_pointer())
            loaded.append(builder.load(address, align=size))
        limit = _splat(builder, arguments[4], vector)
        mask = builder.fcmp_ordered(">=", builder.fmul(*loaded), limit)
        return builder.zext(builder.bitcast(mask, ir.IntType(16)), _LONG)

    return types.uint64(u, at, factor, channel, threshold), generate


@intrinsic
def nonzero(typingctx, signal, at):
    """Bit i of the result: whether `signal[at + i]` is not 0 (NaN is not), i = 0 ... 15."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        vector = ir.VectorType(context.get_value_type(kind.dtype), 16)
        data = context.make_array(kind)(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer())
        loaded = builder.load(address, align=kind.dtype.bitwidth // 8)
        mask = builder.fcmp_unordered("!=", loaded, ir.Constant(vector, [0.0] * 16))
        return builder.zext(builder.bitcast(mask, ir.IntType(16)), _LONG)

    return types.uint64(signal, at), generate


@intrinsic
def lowest(typingctx, bits):
    """Index of the lowest set bit of a uint64 that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), generate


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector with `value` in every lane."""
    empty = ir.Constant(vector, ir.Undefined)
    first = ir.Constant(ir.VectorType(_INT, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(empty, value, _INT(0)), empty, first)


class _Rows:
    """Writes the instructions of `add_rows`."""

    def __init__(self, builder: Any, width: int, element: Any, weight: Any) -> None:
        self.builder, self.width, self.weight = builder, width, weight
        self.bytes = 8 if isinstance(element, ir.DoubleType) else 4
        self.lanes = _VECTOR // self.bytes
        self.vector = ir.VectorType(element, self.lanes)

    def add(self, out: Any, at: Any, weights: Any, base: Any, events: Any, span: Any) -> None:
        builder, (first, last) = self.builder, span
        out, weights = builder.gep(out, [at]), builder.gep(weights, [base])
        sums = [self._load(out, j, self.vector, self.bytes) for j in range(self._vectors)]
        before = builder.block
        head, body, end = (builder.append_basic_block(n) for n in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(first.type)
        running = [builder.phi(self.vector) for _ in sums]
        builder.cbranch(builder.icmp_signed("<", k, last), body, end)
        builder.position_at_end(body)
        after = self._add_row(running, weights, events, k)
        following = builder.add(k, first.type(1))
        builder.branch(head)
        for phi, start, new in zip([k, *running], [first, *sums], [following, *after]):
            phi.add_incoming(start, before)
            phi.add_incoming(new, body)
        builder.position_at_end(end)
        for j, total in enumerate(running):
            builder.store(total, self._address(out, j, self.vector), align=self.bytes)

    @property
    def _vectors(self) -> int:
        return self.width // self.lanes

    def _add_row(self, sums: list[Any], weights: Any, events: Any, k: Any) -> list[Any]:
        builder = self.builder
        self._fetch(self._row(weights, events[0], builder.add(k, k.type(AHEAD))))
        row = self._row(weights, events[0], k)
        value = _splat(builder, builder.load(builder.gep(events[1], [k])), self.vector)
        fused = ("contract",)  # multiply and add may round once
        return [
            builder.fadd(builder.fmul(value, self._weights(row, j), flags=fused), s, flags=fused)
            for j, s in enumerate(sums)
        ]

    def _row(self, weights: Any, index: Any, k: Any) -> Any:
        """Address of the row of event k."""
        channel = self.builder.load(self.builder.gep(index, [k]))
        step = self.builder.mul(self.builder.sext(channel, k.type), k.type(self.width))
        return self.builder.gep(weights, [step])

    def _fetch(self, row: Any) -> None:
        """Ask for a row's cache lines."""
        builder, byte = self.builder, ir.IntType(8).as_pointer()
        signature = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0i8")
        row = builder.bitcast(row, byte)
        for line in range(0, self.width * self.weight.bitwidth // 8, _VECTOR):
            near = (_INT(0), _INT(3), _INT(1))  # read, keep in all caches, data
            builder.call(prefetch, [builder.gep(row, [_LONG(line)]), *near])

    def _weights(self, row: Any, j: int) -> Any:
        """Vector j of a row of weights, in the type of the sums."""
        builder = self.builder
        if self.weight == types.uint16:  # bfloat16: the upper half of a float32
            halves = self._load(row, j, ir.VectorType(ir.IntType(16), self.lanes), 2)
            wide = ir.VectorType(_INT, self.lanes)
            bits = builder.shl(builder.zext(halves, wide), ir.Constant(wide, [16] * self.lanes))
            return builder.bitcast(bits, self.vector)
        if self.weight == types.int8:
            narrow = self._load(row, j, ir.VectorType(ir.IntType(8), self.lanes), 1)
            return builder.sitofp(narrow, self.vector)
        return self._load(row, j, self.vector, self.bytes)

    def _address(self, base: Any, j: int, vector: Any) -> Any:
        element = self.builder.gep(base, [_LONG(j * self.lanes)])
        return self.builder.bitcast(element, vector.as_pointer())

    def _load(self, base: Any, j: int, vector: Any, align: int) -> Any:
        return self.builder.load(self._address(base, j, vector), align=align)
