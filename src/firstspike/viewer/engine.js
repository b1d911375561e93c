"use strict";
// Spiking networks in the browser: the clock-driven engine on dense arrays of 64-bit floats.
//
// A population's potential at a step is the affine segment in front of it, applied to what its
// sources have delivered so far. It is computed again only when one of them has fired since. A max
// pool of delivered values is the earliest spike, since values fall with time.

const OPS = {
  Convolution: {
    forward(op, [x], out) { convolve(op, x, out, bias(op), true); },
    backward(op, gradient, inputs) { convolveBack(op, gradient, inputs[0]); },
  },
  Dense: {
    forward(op, [x], out) {
      const { weight, bias: b } = op.tensors, n = op.tensor.weight[1], m = op.tensor.weight[0];
      for (let row = 0; row * m < out.data.length; row++)
        for (let j = 0; j < m; j++) {
          let sum = b ? b[j] : 0;
          for (let i = 0; i < n; i++) sum += weight[j * n + i] * x.data[row * n + i];
          out.data[row * m + j] = sum;
        }
    },
    backward(op, gradient, [x]) {
      const { weight } = op.tensors, n = op.tensor.weight[1], m = op.tensor.weight[0];
      for (let k = 0; k < gradient.length; k++) {
        if (!gradient[k]) continue;
        const row = Math.floor(k / m), j = k % m;
        for (let i = 0; i < n; i++) x.gradient[row * n + i] += weight[j * n + i] * gradient[k];
      }
    },
  },
  Affine: {
    forward(op, [x], out) {
      const scale = spread(op, "scale", x.shape, 1), shift = spread(op, "shift", x.shape, 0);
      for (let i = 0; i < out.data.length; i++) out.data[i] = scale(i) * x.data[i] + shift(i);
    },
    backward(op, gradient, [x]) {
      const scale = spread(op, "scale", x.shape, 1);
      for (let i = 0; i < gradient.length; i++) x.gradient[i] += scale(i) * gradient[i];
    },
  },
  Add: {
    forward(op, inputs, out) {
      out.data.fill(0);
      inputs.forEach((x, k) => {
        const c = op.hyper.coefficients[k];
        for (let i = 0; i < out.data.length; i++) out.data[i] += c * x.data[i];
      });
    },
    backward(op, gradient, inputs) {
      inputs.forEach((x, k) => {
        const c = op.hyper.coefficients[k];
        for (let i = 0; i < gradient.length; i++) x.gradient[i] += c * gradient[i];
      });
    },
  },
  Concatenate: {
    forward(op, inputs, out) {
      joined(op, inputs, out.shape, (x, i, j) => { out.data[j] = x.data[i]; });
    },
    backward(op, gradient, inputs, shape) {
      joined(op, inputs, shape, (x, i, j) => { x.gradient[i] += gradient[j]; });
    },
  },
  Reshape: {
    forward(op, [x], out) { out.data.set(x.data); },
    backward(op, gradient, [x]) { for (let i = 0; i < gradient.length; i++) x.gradient[i] += gradient[i]; },
  },
  AveragePool: {
    forward(op, [x], out) {
      out.data.fill(0);
      windows(op, x.shape, out.shape, true, (i, j, count) => { out.data[j] += x.data[i] / count; });
    },
    backward(op, gradient, [x], shape) {
      windows(op, x.shape, shape, true, (i, j, count) => { x.gradient[i] += gradient[j] / count; });
    },
  },
  MaxPool: {
    forward(op, [x], out) {
      out.data.fill(-Infinity);
      windows(op, x.shape, out.shape, false, (i, j) => { if (x.data[i] > out.data[j]) out.data[j] = x.data[i]; });
    },
    backward(op, gradient, [x], shape) {
      const best = new Int32Array(gradient.length).fill(-1);
      windows(op, x.shape, shape, false, (i, j) => { if (best[j] < 0 || x.data[i] > x.data[best[j]]) best[j] = i; });
      best.forEach((i, j) => { if (i >= 0) x.gradient[i] += gradient[j]; });
    },
  },
};

const bias = (op) => op.tensors.bias || null;
const size = (shape) => shape.reduce((a, b) => a * b, 1);
const pair = (value) => (Array.isArray(value) ? value : [value, value]);

function convolve(op, x, out, b) {
  const [m, perGroup, kh, kw] = op.tensor.weight, { weight } = op.tensors;
  const [c, h, w] = x.shape, [, oh, ow] = out.shape, groups = op.hyper.groups || 1;
  const [sh, sw] = pair(op.hyper.stride ?? 1), [ph, pw] = pair(op.hyper.padding ?? 0), [dh, dw] = pair(op.hyper.dilation ?? 1);
  for (let o = 0; o < m; o++) {
    const base = o * oh * ow, first = Math.floor(o / (m / groups)) * perGroup;
    out.data.fill(b ? b[o] : 0, base, base + oh * ow);
    for (let i = 0; i < perGroup; i++)
      for (let ky = 0; ky < kh; ky++)
        for (let kx = 0; kx < kw; kx++) {
          const k = weight[((o * perGroup + i) * kh + ky) * kw + kx];
          if (!k) continue;
          for (let y = 0; y < oh; y++) {
            const sy = y * sh - ph + ky * dh;
            if (sy < 0 || sy >= h) continue;
            const row = ((first + i) * h + sy) * w, to = base + y * ow;
            for (let z = 0; z < ow; z++) {
              const sx = z * sw - pw + kx * dw;
              if (sx >= 0 && sx < w) out.data[to + z] += k * x.data[row + sx];
            }
          }
        }
  }
}

function convolveBack(op, gradient, x) {
  const [m, perGroup, kh, kw] = op.tensor.weight, { weight } = op.tensors;
  const [, h, w] = x.shape, [oh, ow] = op.shape.slice(1), groups = op.hyper.groups || 1;
  const [sh, sw] = pair(op.hyper.stride ?? 1), [ph, pw] = pair(op.hyper.padding ?? 0), [dh, dw] = pair(op.hyper.dilation ?? 1);
  for (let k = 0; k < gradient.length; k++) {
    if (!gradient[k]) continue;
    const o = Math.floor(k / (oh * ow)), y = Math.floor(k / ow) % oh, z = k % ow;
    const first = Math.floor(o / (m / groups)) * perGroup;
    for (let i = 0; i < perGroup; i++)
      for (let ky = 0; ky < kh; ky++)
        for (let kx = 0; kx < kw; kx++) {
          const sy = y * sh - ph + ky * dh, sx = z * sw - pw + kx * dw;
          if (sy < 0 || sy >= h || sx < 0 || sx >= w) continue;
          x.gradient[((first + i) * h + sy) * w + sx] += weight[((o * perGroup + i) * kh + ky) * kw + kx] * gradient[k];
        }
  }
}

// Element of a tensor that broadcasts against one sample of `shape`.
function spread(op, name, shape, absent) {
  const data = op.tensors[name], own = op.tensor[name];
  if (!data) return () => absent;
  if (data.length === 1) return () => data[0];
  const full = [...Array(shape.length - own.length).fill(1), ...own];
  return (i) => {
    let index = 0, step = 1;
    for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
      const at = rest % shape[axis];
      rest = Math.floor(rest / shape[axis]);
      if (full[axis] > 1) index += at * step;
      step *= full[axis];
    }
    return data[index];
  };
}

function joined(op, inputs, shape, visit) {
  const axis = op.hyper.dim - 1, inner = size(shape.slice(axis + 1)), whole = shape[axis] * inner;
  let offset = 0;
  for (const x of inputs) {
    const part = x.shape[axis] * inner;
    for (let i = 0; i < x.data.length; i++) visit(x, i, Math.floor(i / part) * whole + offset + (i % part));
    offset += part;
  }
}

// Visit (input, output, members) of every window of a two-dimensional pool.
function windows(op, from, to, average, visit) {
  const [c, h, w] = from, [, oh, ow] = to, hyper = op.hyper;
  const [kh, kw] = pair(hyper.kernel_size), [sh, sw] = pair(hyper.stride ?? hyper.kernel_size);
  const [ph, pw] = pair(hyper.padding ?? 0), [dh, dw] = pair(hyper.dilation ?? 1);
  for (let channel = 0; channel < c; channel++)
    for (let y = 0; y < oh; y++)
      for (let x = 0; x < ow; x++) {
        const members = [];
        for (let ky = 0; ky < kh; ky++)
          for (let kx = 0; kx < kw; kx++) {
            const sy = y * sh - ph + ky * dh, sx = x * sw - pw + kx * dw;
            if (sy >= 0 && sy < h && sx >= 0 && sx < w) members.push((channel * h + sy) * w + sx);
          }
        const y1 = Math.min(y * sh - ph + kh, h + ph), x1 = Math.min(x * sw - pw + kw, w + pw);
        const padded = (y1 - (y * sh - ph)) * (x1 - (x * sw - pw));
        const count = !average ? 1 : hyper.divisor_override || (hyper.count_include_pad === false ? members.length : padded);
        for (const i of members) visit(i, (channel * oh + y) * ow + x, count);
      }
}

function decodeArray({ kind, data }) {
  const text = typeof atob === "function" ? atob(data) : Buffer.from(data, "base64").toString("latin1");
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const type = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array, f8: Float64Array }[kind];
  return new type(bytes.buffer);
}

// Spike times as floats, Infinity = never fired.
function decodeTimes(packed) {
  const raw = decodeArray(packed), never = { u1: 255, u2: 65535 }[packed.kind];
  return Float64Array.from(raw, (t) => (t === never ? Infinity : t));
}

class SpikingNetwork {
  constructor(live) {
    this.nodes = live.nodes.map((node) => ({
      ...node,
      tensors: Object.fromEntries(Object.entries(node.data || {}).map(([k, v]) => [k, decodeArray(v)])),
    }));
    this.node = Object.fromEntries(this.nodes.map((n) => [n.name, n]));
    this.populations = live.populations;
    this.low = live.low;
    this.output = this.nodes[this.nodes.length - 1].name;
    const neuron = (name) => this.node[name].op === "Rectifier" || name === "input";
    this.sources = {}; // population (or readout) -> nodes to run, populations they read
    for (const name of [...this.populations.map((p) => p.name).slice(1), this.output]) {
      const nodes = [], sources = new Set();
      const visit = (node) => {
        for (const below of node.inputs) {
          if (neuron(below)) sources.add(below);
          else visit(this.node[below]);
        }
        if (!nodes.includes(node) && node.op !== "Rectifier") nodes.push(node);
      };
      visit(this.node[name]);
      this.sources[name] = { nodes, sources: [...sources] };
    }
  }

  // Potentials of one population or the readout from what its sources have delivered.
  potential(name, delivered) {
    const signals = {};
    const get = (below) => signals[below] || { data: delivered[below], shape: this.node[below].shape };
    for (const node of this.sources[name].nodes) {
      const out = { data: new Float64Array(size(node.shape)), shape: node.shape };
      OPS[node.op].forward(node, node.inputs.map(get), out);
      signals[node.name] = out;
    }
    const node = this.node[name];
    return node.op === "Rectifier" ? get(node.inputs[0]).data : signals[name].data;
  }

  // Run one sample. `settings[name]` = {start, thresholds, values} of every population.
  run(x, settings) {
    const low = spread({ tensors: { low: this.low.data }, tensor: { low: this.low.shape } }, "low", this.node.input.shape, 0);
    const latency = Math.max(...this.populations.map((p) => settings[p.name].start + settings[p.name].thresholds.length));
    const state = {};
    for (const p of this.populations) {
      const n = size(p.shape);
      state[p.name] = { times: new Float64Array(n).fill(Infinity), delivered: new Float64Array(n), changed: -1, seen: -2, u: null };
    }
    state.input.u = Float64Array.from(x, (v, i) => v - low(i));
    const delivered = Object.fromEntries(Object.entries(state).map(([k, s]) => [k, s.delivered]));
    const race = [];
    let latest = -2, logits = null;
    for (let g = 0; g < latency; g++) {
      for (const p of this.populations) {
        const s = state[p.name], { start, thresholds, values } = settings[p.name], t = g - start;
        if (t < 0 || t >= thresholds.length) continue;
        if (p.name !== "input") {
          const change = Math.max(...this.sources[p.name].sources.map((below) => state[below].changed));
          if (s.seen < change || s.u === null) { s.u = this.potential(p.name, delivered); s.seen = change; }
        }
        const scale = p.scale.length === 1 ? null : size(p.shape) / p.scale.length;
        for (let i = 0; i < s.u.length; i++) {
          if (s.times[i] !== Infinity) continue;
          const own = scale === null ? p.scale[0] : p.scale[Math.floor(i / scale)];
          if (s.u[i] * (1 / own) >= thresholds[t]) {
            s.times[i] = t;
            s.delivered[i] = values[t] * own;
            s.changed = g;
          }
        }
      }
      const change = Math.max(...this.sources[this.output].sources.map((below) => state[below].changed));
      if (latest < change || logits === null) { logits = this.potential(this.output, delivered); latest = change; }
      race.push(logits);
    }
    const pick = (key) => Object.fromEntries(Object.entries(state).map(([k, s]) => [k, s[key]]));
    return { times: pick("times"), potentials: pick("u"), delivered, logits, race, latency };
  }

  // What each input spike adds to one neuron's potential: [{population, index, value}], largest first.
  contributions(name, index, delivered, most = 6) {
    const { nodes, sources } = this.sources[name], signals = {};
    for (const below of sources) signals[below] = { data: delivered[below], shape: this.node[below].shape, gradient: new Float64Array(delivered[below].length) };
    for (const node of nodes) {
      const out = { data: new Float64Array(size(node.shape)), shape: node.shape, gradient: new Float64Array(size(node.shape)) };
      OPS[node.op].forward(node, node.inputs.map((n) => signals[n]), out);
      signals[node.name] = out;
    }
    const node = this.node[name], top = node.op === "Rectifier" ? node.inputs[0] : name;
    signals[top].gradient[index] = 1;
    for (const n of [...nodes].reverse()) OPS[n.op].backward(n, signals[n.name].gradient, n.inputs.map((k) => signals[k]), n.shape);
    const found = [];
    for (const below of sources)
      signals[below].gradient.forEach((g, i) => {
        const value = g * delivered[below][i];
        if (value) found.push({ population: below, index: i, value });
      });
    return found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, most);
  }
}

// Windows and tables of all populations for other settings: {window, offset, tau} (tau: factor).
function settingsOf(populations, change = {}) {
  const out = {}, input = populations[0];
  const window = change.window ?? populations[populations.length - 1].window;
  const first = change.window && change.window !== populations[populations.length - 1].window ? window : input.window;
  const offset = change.offset ?? window;
  for (const p of populations) {
    const count = p.depth === 0 ? first : window;
    const same = count === p.window && (change.tau ?? 1) === 1;
    const table = same ? p : tableOf(p, count, change.tau ?? 1);
    out[p.name] = {
      start: p.depth === 0 ? 0 : first - (window - offset) + (p.depth - 1) * offset,
      thresholds: table.thresholds,
      values: table.values,
    };
  }
  return out;
}

function tableOf(p, window, factor) {
  const late = p.half_step ? 0.5 : 0, steps = Array.from({ length: window }, (_, t) => t);
  if (p.kernel.name === "Exponential") {
    const tau = p.kernel.tau * factor * (window / p.window), delay = p.kernel.delay;
    const k = (t) => Math.exp(-(t - delay) / tau);
    return { thresholds: steps.map((t) => k(t + late)), values: steps.map(k) };
  }
  const k = (t) => (window - t) / window; // linear
  return { thresholds: steps.map((t) => k(t + late)), values: steps.map(k) };
}

if (typeof module !== "undefined") module.exports = { SpikingNetwork, settingsOf, decodeArray, decodeTimes, OPS };
