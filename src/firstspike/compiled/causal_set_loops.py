"""Compiled loops of `causal_set`, in a module of their own so that numba loads only when needed.

Weights come in blocks of neighbouring outputs, (blocks, inputs, width), so that a block stays in
the second-level cache while all samples pass, and the loop over its outputs vectorizes. Arrays of
outputs, (N, blocks * width), have room for the last block's padding, which never fires.
"""

from __future__ import annotations

import numba
import numpy as np

LANES = 8  # outputs searched together for one that fires; the width of a block is a multiple
_FIRED = 1e300  # the moment of an output that has fired: its potential never comes back


@numba.njit(nogil=True, cache=True)
def walk(times, order, events, weight, outputs, threshold, least, out, slope, causal, first, last):
    """Spike times of the blocks `first` ... `last - 1` for all samples.

    With W the sum of the weights so far and M that of weights times their times, the potential is
    `u(t) = t W - M`. Events are taken in order, and after each one every output of the block that
    is at its threshold when the next one comes has fired in between. A block is left as soon as
    all of its outputs have fired. Sums are kept in float64.

    Args:
        times, order: (N, inputs) input times in order, and which inputs they are.
        events: (N,) how many of them are finite.
        outputs: without padding.
        least: smallest slope to divide by.
        out, slope, causal: (N, blocks * width) spike times, slope of the potential then, and how
            many events had come; filled in where an output fires.
    """
    width = weight.shape[2]
    total = np.empty(width, np.float64)
    moment = np.empty(width, np.float64)
    for block in range(first, last):
        rows, start = weight[block], block * width
        for n in range(len(times)):
            total[:] = 0.0
            moment[:] = 0.0
            alive, known = min(width, outputs - start), events[n]
            for k in range(known):
                now, row = np.float64(times[n, k]), rows[order[n, k]]
                following = np.float64(times[n, k + 1]) if k + 1 < known else np.inf
                for c in range(0, width, LANES):
                    crossed = np.int32(0)
                    for o in range(c, c + LANES):
                        steep = total[o] + row[o]
                        shift = moment[o] + row[o] * now
                        total[o], moment[o] = steep, shift
                        crossed += np.int32(steep * following - shift >= threshold)
                    if crossed == 0:
                        continue
                    for o in range(c, c + LANES):
                        if total[o] > least and total[o] * following - moment[o] >= threshold:
                            if moment[o] >= _FIRED / 2:  # only where `following` is infinite
                                continue
                            out[n, start + o] = max((threshold + moment[o]) / total[o], now)
                            slope[n, start + o] = total[o]
                            causal[n, start + o] = k + 1
                            moment[o] = _FIRED
                            alive -= 1
                if alive == 0:
                    break


@numba.njit(nogil=True, cache=True)
def weight_gradient(times, order, longest, share, fired, causal, out, first, last):
    """out[b, i, o] = sum_n share[n, o] (t_i - t_o) over the samples with event i in o's causal set.

    Args:
        times, order, causal, first, last: see `walk`.
        longest: (N, blocks) size of a block's largest causal set.
        share: (N, blocks * width) gradient over slope, 0 where silent.
        fired: (N, blocks * width) spike times, 0 where silent.
    """
    width = out.shape[2]
    for block in range(first, last):
        start, stop = block * width, (block + 1) * width
        for n in range(len(times)):
            g, t, size = share[n, start:stop], fired[n, start:stop], causal[n, start:stop]
            for k in range(longest[n, block]):
                now, row, event = times[n, k], out[block, order[n, k]], np.int32(k)
                for o in range(width):
                    row[o] += (g[o] if event < size[o] else 0) * (now - t[o])


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def time_gradient(order, longest, share, causal, weight, out, first, last):
    """out[n, i] = sum_o share[n, o] w_oi over the outputs with event i in their causal set.

    Samples `first` ... `last - 1`; the arguments are those of `weight_gradient`.
    """
    blocks, _, width = weight.shape
    for block in range(blocks):
        start, stop = block * width, (block + 1) * width
        for n in range(first, last):
            g, size = share[n, start:stop], causal[n, start:stop]
            for k in range(longest[n, block]):
                row, event = weight[block, order[n, k]], np.int32(k)
                total = row.dtype.type(0)
                for o in range(width):
                    total += (g[o] if event < size[o] else 0) * row[o]
                out[n, order[n, k]] += total
