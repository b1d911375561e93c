"use strict";
// The page: columns of feature maps, a clock, the race of the classes, one neuron at a time.
/* global SpikingNetwork, settingsOf, decodeArray, decodeTimes */
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const network = page.live ? new SpikingNetwork(page.live) : null;
  const state = { run: 0, image: 0, step: 0, playing: false, frame: null, neuron: null, drawn: null, settings: {} };
  const RAMP = [[253, 231, 37], [122, 209, 81], [34, 168, 132], [42, 120, 142], [65, 68, 135], [68, 1, 84]]; // early to late
  const CLASS_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#a6761d", "#666", "#7fbc41"];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const format = (v) => (v === Infinity ? "never" : Math.abs(v) >= 1000 || (v && Math.abs(v) < 0.01) ? v.toExponential(2) : v.toFixed(3));

  // ---- what is shown ---------------------------------------------------------------------------
  function load() {
    const run = page.runs[state.run];
    const changed = Object.keys(state.settings).length > 0;
    if (network && (state.drawn || changed)) {
      const x = state.drawn || decodeArray(page.images[state.image].pixels);
      const settings = settingsOf(run.populations, { offset: run.offset, ...state.settings });
      const result = network.run(x, settings);
      state.frame = { ...result, pixels: x, settings, live: true, label: state.drawn ? null : page.images[state.image].label };
    } else {
      const image = page.images[state.image], seen = run.images[state.image], settings = {};
      const times = {}, potentials = {}, delivered = {}, ann = {};
      for (const p of run.populations) {
        times[p.name] = decodeTimes(seen.times[p.name]);
        potentials[p.name] = decodeArray(seen.potentials[p.name]);
        if (image.ann[p.name]) ann[p.name] = decodeArray(image.ann[p.name]);
        const own = p.scale.length === 1 ? null : times[p.name].length / p.scale.length;
        delivered[p.name] = Float64Array.from(times[p.name], (t, i) =>
          t === Infinity ? 0 : p.values[t] * (own === null ? p.scale[0] : p.scale[Math.floor(i / own)]));
        settings[p.name] = { start: p.start, thresholds: p.thresholds, values: p.values };
      }
      const flat = decodeArray(seen.race), classes = flat.length / run.latency;
      const race = Array.from({ length: run.latency }, (_, g) => flat.subarray(g * classes, (g + 1) * classes));
      state.frame = { times, potentials, delivered, ann, race, logits: race[race.length - 1], latency: run.latency,
        pixels: decodeArray(image.pixels), settings, label: image.label, annLogits: image.ann_logits, differing: seen.differing };
    }
    const slider = $("time");
    slider.max = state.frame.latency;
    if (state.step > state.frame.latency) state.step = state.frame.latency;
    layout();
    show();
  }

  const best = (logits) => logits.reduce((a, v, i) => (v > logits[a] ? i : a), 0);
  const name = (k) => page.classes[k] ?? String(k);

  function decisionStep(race) {
    const answer = best(race[race.length - 1]);
    let g = race.length;
    while (g > 0 && best(race[g - 1]) === answer) g--;
    return Math.min(g + 1, race.length);
  }

  // ---- the columns -----------------------------------------------------------------------------
  let boxes = [];
  function mapsOf(shape) {
    if (shape.length === 1) { const w = Math.max(1, Math.ceil(Math.sqrt(shape[0] / 3))); return [1, Math.ceil(shape[0] / w), w, shape[0]]; }
    const w = shape[shape.length - 1], h = shape.length > 2 ? shape[shape.length - 2] : 1;
    const n = shape.reduce((a, b) => a * b, 1);
    return [n / (h * w), h, w, n];
  }

  function layout() {
    const run = page.runs[state.run], height = 360;
    boxes = [];
    let x = 4;
    for (const p of run.populations) {
      const [maps, h, w, n] = mapsOf(p.shape);
      let columns = 1, cell = 1;
      for (let k = 1; k <= maps; k++) { // the widest cells that let all maps fit
        const rows = Math.ceil(maps / k), size = Math.min(12, height / (rows * (h + 0.5)), 200 / (k * (w + 0.5)));
        if (size > cell || k === 1) { cell = size; columns = k; }
      }
      const rows = Math.ceil(maps / columns), gap = maps > 1 ? cell / 2 : 0;
      boxes.push({ p, maps, h, w, n, columns, cell, gap, x, y: 26, width: columns * (w * cell + gap), height: rows * (h * cell + gap) });
      x += Math.max(boxes[boxes.length - 1].width, 74) + 22;
    }
    const canvas = $("network"), ratio = window.devicePixelRatio || 1;
    canvas.width = x * ratio; canvas.height = (height + 48) * ratio;
    canvas.style.width = `${x}px`; canvas.style.height = `${height + 48}px`;
    canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  function colour(t, window) {
    const s = window > 1 ? (t / (window - 1)) * (RAMP.length - 1) : 0, k = Math.min(Math.floor(s), RAMP.length - 2), f = s - k;
    return RAMP[k].map((a, c) => Math.round(a + (RAMP[k + 1][c] - a) * f));
  }

  const bitmaps = {};
  function paint(box, now) {
    const { p, maps, h, w, n } = box, times = state.frame.times[p.name];
    const { start, thresholds } = state.frame.settings[p.name];
    const bitmap = (bitmaps[p.name] ??= document.createElement("canvas"));
    if (bitmap.width !== w || bitmap.height !== h * maps) { bitmap.width = w; bitmap.height = h * maps; }
    const context = bitmap.getContext("2d"), image = context.createImageData(w, h * maps);
    const idle = hex(css("--idle")), silent = hex(css("--silent")), flash = hex(css("--flash"));
    const palette = thresholds.map((_, t) => colour(t, thresholds.length));
    const closed = now >= start + thresholds.length;
    let fired = 0;
    for (let i = 0; i < maps * h * w; i++) {
      let c = idle, alpha = 255;
      if (i >= n) alpha = 0;
      else if (times[i] !== Infinity && start + times[i] < now) {
        fired++;
        c = start + times[i] === now - 1 && now < state.frame.latency ? flash : palette[times[i]];
      } else if (closed) c = silent;
      image.data[4 * i] = c[0]; image.data[4 * i + 1] = c[1]; image.data[4 * i + 2] = c[2]; image.data[4 * i + 3] = alpha;
    }
    context.putImageData(image, 0, 0);
    return [bitmap, fired];
  }

  function hex(text) {
    const v = parseInt(text.slice(1), 16);
    return [v >> 16, (v >> 8) & 255, v & 255];
  }

  function drawNetwork() {
    const context = $("network").getContext("2d"), now = state.step;
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, $("network").width, $("network").height);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    for (const box of boxes) {
      const [bitmap, fired] = paint(box, now), { start, thresholds } = state.frame.settings[box.p.name];
      const open = now > start && now <= start + thresholds.length;
      context.fillStyle = open ? css("--accent") : css("--muted");
      context.fillText(box.p.name, box.x, 12);
      context.fillText(`${start}–${start + thresholds.length - 1}`, box.x, 23);
      for (let m = 0; m < box.maps; m++) {
        const column = m % box.columns, row = Math.floor(m / box.columns);
        context.drawImage(bitmap, 0, m * box.h, box.w, box.h, box.x + column * (box.w * box.cell + box.gap),
          box.y + row * (box.h * box.cell + box.gap) + 4, box.w * box.cell, box.h * box.cell);
      }
      context.fillStyle = css("--muted");
      context.fillText(`${fired} of ${box.n}`, box.x, box.y + box.height + 18);
      for (const i of state.frame.differing?.[box.p.name] ?? []) ring(context, box, i, css("--wrong"));
    }
    if (state.neuron) {
      const box = boxes.find((b) => b.p.name === state.neuron.population);
      if (box) ring(context, box, state.neuron.index, css("--mark"));
    }
  }

  function ring(context, box, i, ink) {
    const [x, y] = placeOf(box, i);
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.strokeRect(x - 1, y - 1, Math.max(box.cell, 3) + 2, Math.max(box.cell, 3) + 2);
  }

  function placeOf(box, i) {
    const m = Math.floor(i / (box.h * box.w)), r = Math.floor(i / box.w) % box.h, c = i % box.w;
    return [box.x + (m % box.columns) * (box.w * box.cell + box.gap) + c * box.cell,
      box.y + 4 + Math.floor(m / box.columns) * (box.h * box.cell + box.gap) + r * box.cell];
  }

  function neuronAt(x, y) {
    for (const box of boxes) {
      const stepX = box.w * box.cell + box.gap, stepY = box.h * box.cell + box.gap, dx = x - box.x, dy = y - box.y - 4;
      if (dx < 0 || dy < 0 || dx >= box.columns * stepX) continue;
      const column = Math.floor(dx / stepX), row = Math.floor(dy / stepY), m = row * box.columns + column;
      const c = Math.floor((dx - column * stepX) / box.cell), r = Math.floor((dy - row * stepY) / box.cell);
      const i = (m * box.h + r) * box.w + c;
      if (m < box.maps && c < box.w && r < box.h && i < box.n) return { population: box.p.name, index: i };
    }
    return null;
  }

  // ---- the race --------------------------------------------------------------------------------
  function drawRace() {
    const canvas = $("race"), ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    canvas.width = w * ratio; canvas.height = h * ratio;
    const context = canvas.getContext("2d"), { race } = state.frame;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    let low = Infinity, high = -Infinity;
    for (const row of race) for (const v of row) { low = Math.min(low, v); high = Math.max(high, v); }
    const X = (g) => 4 + ((w - 8) * g) / Math.max(race.length - 1, 1), Y = (v) => h - 14 - ((h - 22) * (v - low)) / (high - low || 1);
    const last = race[race.length - 1], order = [...last.keys()].sort((a, b) => last[a] - last[b]);
    for (const k of order) {
      context.strokeStyle = CLASS_COLOURS[k % CLASS_COLOURS.length];
      context.globalAlpha = k === best(last) ? 1 : 0.55;
      context.lineWidth = k === best(last) ? 2.5 : 1.2;
      context.beginPath();
      race.forEach((row, g) => (g ? context.lineTo(X(g), Y(row[k])) : context.moveTo(X(g), Y(row[k]))));
      context.stroke();
    }
    context.globalAlpha = 1;
    const decision = decisionStep(race);
    context.strokeStyle = css("--mark"); context.lineWidth = 1.5; context.setLineDash([4, 3]);
    line(context, X(decision - 1), h);
    context.setLineDash([]); context.strokeStyle = css("--ink");
    line(context, X(Math.max(state.step - 1, 0)), h);
    const now = race[Math.min(Math.max(state.step - 1, 0), race.length - 1)], list = $("classes");
    list.replaceChildren(...[...now.keys()].sort((a, b) => now[b] - now[a]).slice(0, 5).map((k) => {
      const item = document.createElement("li"), dot = document.createElement("span");
      dot.className = "dot"; dot.style.background = CLASS_COLOURS[k % CLASS_COLOURS.length];
      item.append(dot, `${name(k)}: ${format(now[k])}`);
      return item;
    }));
    $("decision").textContent = `Decided from step ${decision} of ${race.length}.`;
  }

  function line(context, x, h) { context.beginPath(); context.moveTo(x, 4); context.lineTo(x, h - 4); context.stroke(); }

  // ---- one neuron ------------------------------------------------------------------------------
  function describeNeuron() {
    const out = $("neuron"), at = state.neuron;
    drawThreshold();
    if (!at) { out.textContent = "Point at a neuron, or select the network and use the arrow keys."; return; }
    const p = page.runs[state.run].populations.find((q) => q.name === at.population), f = state.frame;
    const t = f.times[p.name][at.index], rows = [
      ["neuron", `${p.name} [${unravel(at.index, p.shape).join(", ")}]`],
      ["spike", t === Infinity ? "never (silent)" : `step ${t} of its window, ${f.settings[p.name].start + t} of all`],
      ["says", format(f.delivered[p.name][at.index])],
      [p.name === "input" ? "input" : "potential", format(f.potentials[p.name][at.index])],
    ];
    if (f.ann?.[p.name]) rows.push(["ANN", format(f.ann[p.name][at.index])]);
    const list = document.createElement("dl");
    for (const [term, text] of rows) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = term; dd.textContent = text; list.append(dt, dd);
    }
    out.replaceChildren(list);
    if (network && p.name !== "input") {
      const heading = document.createElement("h3"), items = document.createElement("ol");
      heading.textContent = "Largest inputs";
      for (const c of network.contributions(p.name, at.index, f.delivered)) {
        const item = document.createElement("li");
        item.textContent = `${c.population} [${unravel(c.index, network.node[c.population].shape).join(", ")}] ${c.value > 0 ? "+" : ""}${format(c.value)}`;
        items.append(item);
      }
      out.append(heading, items);
    }
  }

  const unravel = (i, shape) => shape.map((_, axis) => Math.floor(i / shape.slice(axis + 1).reduce((a, b) => a * b, 1)) % shape[axis]);

  function drawThreshold() {
    const canvas = $("threshold"), ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    canvas.width = w * ratio; canvas.height = h * ratio;
    const context = canvas.getContext("2d"), at = state.neuron;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!at) return;
    const p = page.runs[state.run].populations.find((q) => q.name === at.population), n = p.shape.reduce((a, b) => a * b, 1);
    const scale = p.scale.length === 1 ? p.scale[0] : p.scale[Math.floor(at.index / (n / p.scale.length))];
    const table = state.frame.settings[p.name].thresholds.map((v) => v * scale), u = state.frame.potentials[p.name][at.index];
    const top = Math.max(table[0], u) * 1.08, low = Math.min(0, u) * 1.08;
    const X = (t) => 2 + ((w - 4) * t) / table.length, Y = (v) => h - 4 - ((h - 8) * (v - low)) / (top - low);
    context.strokeStyle = css("--muted"); context.lineWidth = 1.5; context.beginPath();
    table.forEach((v, t) => { context.lineTo(X(t), Y(v)); context.lineTo(X(t + 1), Y(v)); });
    context.stroke();
    context.strokeStyle = css("--accent"); context.beginPath(); context.moveTo(X(0), Y(u)); context.lineTo(X(table.length), Y(u)); context.stroke();
    const t = state.frame.times[p.name][at.index];
    if (t !== Infinity) { context.fillStyle = css("--mark"); context.beginPath(); context.arc(X(t + 0.5), Y(u), 4, 0, 7); context.fill(); }
  }

  // ---- the image and drawing -------------------------------------------------------------------
  function drawImage() {
    const canvas = $("image"), shape = page.input_shape;
    const [h, w] = shape.length > 1 ? shape.slice(-2) : [1, shape[0]], channels = shape.length > 2 ? shape[0] : 1;
    canvas.width = w; canvas.height = h;
    const context = canvas.getContext("2d"), out = context.createImageData(w, h), [low, high] = page.range, x = state.frame.pixels;
    for (let i = 0; i < h * w; i++)
      for (let c = 0; c < 3; c++) {
        out.data[4 * i + c] = (255 * (x[(channels === 3 ? c : 0) * h * w + i] - low)) / (high - low || 1);
        out.data[4 * i + 3] = 255;
      }
    context.putImageData(out, 0, 0);
  }

  function brush(event) {
    const canvas = $("image"), box = canvas.getBoundingClientRect(), shape = page.input_shape, [h, w] = shape.slice(-2), [low, high] = page.range;
    const cx = ((event.clientX - box.left) / box.width) * w - 0.5, cy = ((event.clientY - box.top) / box.height) * h - 0.5, radius = w > 16 ? 1.4 : 0.75;
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) {
        const ink = Math.min(1, Math.max(0, 1.5 * (radius + 0.6 - Math.hypot(x - cx, y - cy))));
        state.drawn[y * w + x] = Math.max(state.drawn[y * w + x], low + ink * (high - low));
      }
  }

  // ---- controls --------------------------------------------------------------------------------
  function show() {
    $("time").value = state.step;
    $("time").setAttribute("aria-valuetext", `step ${state.step} of ${state.frame.latency}`);
    $("step").textContent = `${state.step} / ${state.frame.latency}`;
    drawNetwork(); drawRace(); describeNeuron(); drawImage();
    const answer = name(best(state.frame.logits)), truth = state.frame.label == null ? "" : `, label ${name(state.frame.label)}`;
    const ann = state.frame.annLogits ? `, the ANN says ${name(best(state.frame.annLogits))}` : "";
    $("answer").textContent = `The spikes say ${answer}${truth}${ann}.`;
    let spikes = 0;
    for (const key of Object.keys(state.frame.times)) if (key !== "input") for (const t of state.frame.times[key]) spikes += t !== Infinity;
    $("count").textContent = `${spikes.toLocaleString("en")} spikes`;
  }

  let before = 0;
  function tick(time) {
    if (!state.playing) return;
    if (time - before > 1000 / Number($("speed").value)) {
      before = time;
      if (state.step >= state.frame.latency) { play(false); return; }
      state.step++;
      show();
    }
    requestAnimationFrame(tick);
  }

  function play(on) {
    state.playing = on;
    $("play").textContent = on ? "Pause" : "Play";
    if (on) { if (state.step >= state.frame.latency) state.step = 0; requestAnimationFrame(tick); }
  }

  $("play").addEventListener("click", () => play(!state.playing));
  $("time").addEventListener("input", () => { play(false); state.step = Number($("time").value); show(); });
  $("network").addEventListener("pointermove", (event) => {
    const box = $("network").getBoundingClientRect(), found = neuronAt(event.clientX - box.left, event.clientY - box.top);
    if (found && (found.population !== state.neuron?.population || found.index !== state.neuron?.index)) { state.neuron = found; drawNetwork(); describeNeuron(); }
  });
  $("network").addEventListener("keydown", (event) => {
    const run = page.runs[state.run], names = run.populations.map((p) => p.name);
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const at = state.neuron ?? { population: names[0], index: 0 };
    let k = names.indexOf(at.population), index = at.index;
    if (event.key === "ArrowLeft") k = Math.max(0, k - 1);
    if (event.key === "ArrowRight") k = Math.min(names.length - 1, k + 1);
    const count = run.populations[k].shape.reduce((a, b) => a * b, 1);
    if (event.key === "ArrowUp") index--;
    if (event.key === "ArrowDown") index++;
    state.neuron = { population: names[k], index: Math.min(Math.max(index, 0), count - 1) };
    drawNetwork(); describeNeuron();
  });

  const options = (select, texts, chosen) => {
    select.replaceChildren(...texts.map((text, k) => { const o = document.createElement("option"); o.value = k; o.textContent = text; return o; }));
    select.addEventListener("change", () => { chosen(Number(select.value)); state.step = Infinity; load(); });
  };
  options($("images"), page.images.map((im, k) => `${k + 1}${im.label == null ? "" : `: ${name(im.label)}`}`), (k) => { state.image = k; state.drawn = null; });
  options($("runs"), page.runs.map((r) => r.title), (k) => { state.run = k; state.settings = {}; });
  $("runs").parentElement.hidden = page.runs.length < 2;
  $("engines").textContent = page.engines;

  if (network) {
    $("live").hidden = false;
    const canDraw = page.input_shape.length === 3 && page.input_shape[0] === 1;
    $("draw-hint").hidden = $("clear").hidden = !canDraw;
    let drawing = false;
    const canvas = $("image");
    if (canDraw) {
      canvas.classList.add("drawable");
      const fresh = () => new Float64Array(page.input_shape.reduce((a, b) => a * b, 1)).fill(page.range[0]);
      $("clear").addEventListener("click", () => { state.drawn = fresh(); state.step = Infinity; load(); });
      canvas.addEventListener("pointerdown", (event) => { state.drawn ??= fresh(); drawing = true; canvas.setPointerCapture(event.pointerId); brush(event); state.step = Infinity; load(); event.preventDefault(); });
      canvas.addEventListener("pointermove", (event) => { if (drawing) { brush(event); load(); } });
      canvas.addEventListener("pointerup", () => { drawing = false; });
    }
    const last = page.runs[0].populations[page.runs[0].populations.length - 1], kernel = last.kernel.name;
    const free = kernel === "Exponential" || kernel === "Linear";
    const change = () => {
      const window = Number($("window").value), offset = Math.min(Number($("offset").value), window), tau = 2 ** Number($("tau").value);
      $("offset").max = window;
      state.settings = { window, offset, tau };
      $("window-value").textContent = window; $("offset-value").textContent = offset; $("tau-value").textContent = tau.toFixed(2);
      state.step = Infinity;
      load();
    };
    $("window").max = 4 * last.window; $("window").value = last.window; $("window").disabled = !free;
    $("offset").max = last.window; $("offset").value = page.runs[0].offset;
    $("tau").disabled = kernel !== "Exponential";
    for (const id of ["window", "offset", "tau"]) $(id).addEventListener("input", change);
    $("window-value").textContent = last.window; $("offset-value").textContent = page.runs[0].offset; $("tau-value").textContent = "1.00";
  }
  window.addEventListener("resize", () => state.frame && show());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());
  state.step = Infinity;
  load();
  window.firstspike = { state, network, page }; // for tests and for the curious
})();
