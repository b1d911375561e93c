"""The compiled loop of `lookup`, in a module of its own so that numba loads only when needed."""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # elements per pass of the loop; they suit 256-bit and wider registers


@intrinsic
def look_up_vectors(typing, u, out, count, factor, low, high, shift, base, entries, results):
    """`look_up_flat` for `count` elements, a multiple of `LANES`.

    `early_firing_loops` hold it too; numba compiles that anew only when its own file changes.

    Written as vector code because what compilers make of the plain loop, a gather instruction, is
    slow on many processors: here indices leave the vector in pairs, one load each.
    """

    def codegen(context, builder, signature, args):
        def data(i):
            return context.make_array(signature.args[i])(context, builder, args[i]).data

        def constant(n):
            return ir.Constant(index, n)

        index, narrow = ir.IntType(64), ir.IntType(32)
        real = context.get_data_type(signature.args[0].dtype)
        whole = context.get_data_type(signature.args[8].dtype)
        reals, wholes = ir.VectorType(real, LANES), ir.VectorType(whole, LANES)

        def spread(scalar, vector):
            undefined = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(undefined, scalar, ir.Constant(narrow, 0))
            zeros = ir.Constant(ir.VectorType(narrow, LANES), [0] * LANES)
            return builder.shuffle_vector(one, undefined, zeros)

        def each(vector):
            """Elements of a vector of indices, as 64-bit integers."""
            if whole.width == 64:
                for lane in range(LANES):
                    yield builder.extract_element(vector, ir.Constant(narrow, lane))
                return
            pairs = builder.bitcast(vector, ir.VectorType(index, LANES // 2))
            for lane in range(LANES // 2):
                pair = builder.extract_element(pairs, ir.Constant(narrow, lane))
                yield builder.and_(pair, constant(0xFFFFFFFF))
                yield builder.lshr(pair, constant(32))

        def take(pointer, indices, vector):
            found = ir.Constant(vector, ir.Undefined)
            for lane, i in enumerate(each(indices)):
                value = builder.load(builder.gep(pointer, [i]))
                found = builder.insert_element(found, value, ir.Constant(narrow, lane))
            return found

        source, target, table, values = data(0), data(1), data(8), data(9)
        scale, smallest, largest = (spread(args[i], reals) for i in (3, 4, 5))
        places, first = (spread(args[i], wholes) for i in (6, 7))
        step = constant(LANES)
        with cgutils.for_range_slice(builder, constant(0), args[2], step, index) as (i, _):
            load = builder.load(builder.bitcast(builder.gep(source, [i]), reals.as_pointer()))
            load.align = 4
            v = builder.fmul(load, scale)
            v = builder.select(builder.fcmp_ordered(">", v, smallest), v, smallest)  # NaN as well
            v = builder.select(builder.fcmp_ordered("<", v, largest), v, largest)
            bits = builder.bitcast(v, wholes)
            bucket = builder.sub(builder.ashr(bits, places), first)
            steps = builder.ashr(builder.sub(take(table, bucket, wholes), bits), places)
            store = builder.bitcast(builder.gep(target, [i]), reals.as_pointer())
            builder.store(take(values, steps, reals), store).align = 4
        return context.get_dummy_value()

    real, whole = u.dtype, entries.dtype
    signature = types.void(u, out, types.int64, real, real, real, whole, whole, entries, results)
    return signature, codegen


@numba.njit(nogil=True, cache=True)
def look_up_flat(u, out, factor, low, high, shift, base, entries, results):
    """out[i] = results[step], step the first crossing of v = u[i] * factor; see `lookup.Buckets`.

    With v clamped to [low, high] and its bits b in bucket `k = (b >> shift) - base`

        step = (entries[k] - b) >> shift

    Args:
        u, out: (n,) potentials and results, maybe the same memory.
        shift, base: integers of the type of `entries`.
        entries: (K,); results: (T + 1,), the last for potentials that never cross.
    """
    rest = len(u) % LANES
    whole = len(u) - rest
    table = (factor, low, high, shift, base, entries, results)
    look_up_vectors(u, out, whole, *table)  # type: ignore[call-arg]
    if rest:
        last = np.zeros(LANES, u.dtype)
        for i in range(rest):
            last[i] = u[whole + i]
        look_up_vectors(last, last, LANES, *table)
        for i in range(rest):
            out[whole + i] = last[i]
