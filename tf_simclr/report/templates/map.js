// The map of the images and the thumbnails anywhere on the page. It asks for no file: the points are JSON in #map-data,
// the thumbnails one picture in #sprite. Names are other people's text, so text enters the page as text nodes only.
(() => {
  "use strict";
  const COLOURS = 20; // As many as the style sheet has: --series-1 ...
  const RAMP_STEPS = 32;
  // Inks, that is rows in the list of colours: what the filter left out, what has no class, the series, the ramp.
  const [FAINT, PLAIN, SERIES, RAMP] = [0, 1, 2, 2 + COLOURS];
  const [WORLD, MARGIN_PX, HIT_PX] = [4096, 24, 14]; // Coordinates are 0 ... 4095.
  const MAX_ZOOM = 64;

  const byId = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  if (!byId("map-data")) return;
  const data = JSON.parse(byId("map-data").textContent);
  const total = data.names.length;
  const sprite = byId("sprite");
  const spriteReady = sprite ? sprite.decode() : Promise.reject();

  // ---- Thumbnails: <canvas data-thumbnail="ROW">, drawn when they come into view.

  function spriteCell(row) {
    const { size, columns } = data.sprite;
    return [(row % columns) * size, Math.floor(row / columns) * size, size, size];
  }

  function drawThumbnail(canvas) {
    const size = (canvas.width = canvas.height = data.sprite.size);
    canvas.getContext("2d").drawImage(sprite, ...spriteCell(Number(canvas.dataset.thumbnail)), 0, 0, size, size);
  }

  function thumbnail(row) {
    const canvas = make("canvas", { className: "thumbnail" });
    canvas.dataset.thumbnail = row;
    canvas.setAttribute("aria-hidden", "true"); // Its name stands beside it.
    spriteReady.then(() => drawThumbnail(canvas), () => {});
    return canvas;
  }

  function drawThumbnailsInView() {
    const waiting = new Set(document.querySelectorAll("canvas[data-thumbnail]"));
    const show = (canvas) => {
      drawThumbnail(canvas);
      observer.unobserve(canvas);
      waiting.delete(canvas);
    };
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) show(entry.target);
    }, { rootMargin: "400px" });
    for (const canvas of waiting) observer.observe(canvas);
    addEventListener("beforeprint", () => waiting.forEach(show));
  }

  spriteReady.then(drawThumbnailsInView, () => {});
  if (!byId("map-canvas") || total === 0) return;

  // ---- State

  const layouts = Object.fromEntries(
    Object.entries(data.layouts).map(([name, { x, y }]) => [name, { x: Float32Array.from(x), y: Float32Array.from(y) }]));
  const columns = Object.entries(data.columns ?? {}).map(([name, { values, names }]) => ({ name, values, names }))
    .filter(({ values }) => values.some((value) => value !== null));
  const classes = columns.find(({ name }) => name === "class");
  const first = Object.values(layouts)[0];
  const points = { x: first.x.slice(), y: first.y.slice() }; // Where they are drawn, also between two layouts.
  const view = { x: WORLD / 2, y: WORLD / 2, zoom: 1 };
  const picked = new Map(); // The code of a class -> its ink. Empty: the legend filters nothing.
  const ink = new Uint8Array(total);
  const level = new Uint8Array(total); // 0: left out by legend or search, 1: drawn, 2: found by the search.
  const order = new Int32Array(total); // Rows as they are drawn, by level.
  let column = columns[0];
  let query = "";
  let matches = [];
  let selected = -1;
  let hovered = -1;
  let pictures = false;

  const canvas = byId("map-canvas");
  const context = canvas.getContext("2d");
  const tip = byId("map-tip");
  let ratio = 1; // Device pixels to a CSS pixel; what follows is in CSS pixels until it is drawn.
  let colours = [];
  let discs = new Map();

  const scale = () => ((Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * MARGIN_PX) / WORLD) * view.zoom;
  const screenX = (row) => canvas.clientWidth / 2 + (points.x[row] - view.x) * scale();
  const screenY = (row) => canvas.clientHeight / 2 - (points.y[row] - view.y) * scale();

  function valueText({ values, names }, row) {
    const value = values[row];
    if (value === null) return "unknown";
    return names ? names[value] : Number(value.toPrecision(4)).toLocaleString("en");
  }

  // ---- Colours

  function mixed(from, to, part) {
    const [a, b] = [from, to].map((hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16)));
    return `rgb(${a.map((value, channel) => Math.round(value + (b[channel] - value) * part)).join(" ")})`;
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    colours = [read("--map-faint"), read("--map-plain")];
    for (let series = 1; series <= COLOURS; series++) colours.push(read(`--series-${series}`));
    for (let step = 0; step < RAMP_STEPS; step++) {
      colours.push(mixed(read("--map-low"), read("--map-high"), step / (RAMP_STEPS - 1)));
    }
    colours.text = read("--text");
    colours.ground = read("--ground");
    discs = new Map();
  }

  function inkOf(code) {
    if (code === null) return PLAIN;
    return picked.get(code) ?? (column.names.length > COLOURS ? PLAIN : SERIES + code);
  }

  function rampOf() {
    let [low, high] = [Infinity, -Infinity];
    for (const value of column.values) {
      if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
    }
    return { low, high, step: (value) => RAMP + Math.round(((value - low) / (high - low || 1)) * (RAMP_STEPS - 1)) };
  }

  function paint() {
    const found = new Set(matches);
    const ramp = column && !column.names && rampOf();
    for (let row = 0; row < total; row++) {
      const value = column ? column.values[row] : null;
      const open = (!picked.size || picked.has(value)) && (!query || found.has(row));
      level[row] = open ? (query ? 2 : 1) : 0;
      ink[row] = !open ? FAINT : ramp && value !== null ? ramp.step(value) : inkOf(value);
    }
    let next = 0;
    for (const wanted of [0, 1, 2]) {
      for (let row = 0; row < total; row++) if (level[row] === wanted) order[next++] = row;
    }
    redraw();
  }

  // ---- Drawing

  let frame = 0;
  function redraw() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  }

  function disc(colour, radius, ring) {
    const key = `${colour} ${radius} ${ring}`;
    if (!discs.has(key)) {
      if (discs.size > 500) discs.clear(); // Every zoom has sizes of its own.
      const size = 2 * Math.ceil(radius + 1);
      const image = make("canvas", { width: size, height: size });
      const pen = image.getContext("2d");
      pen.arc(size / 2, size / 2, radius, 0, 2 * Math.PI);
      pen.fillStyle = colour;
      pen.fill();
      pen.strokeStyle = ring;
      pen.stroke();
      discs.set(key, image);
    }
    return discs.get(key);
  }

  function draw() {
    const [width, height] = [canvas.width, canvas.height];
    const step = scale() * ratio;
    const [left, top] = [width / 2 - view.x * step, height / 2 + view.y * step];
    const radius = Math.min(8, (total > 5000 ? 2 : total > 1000 ? 3.5 : 5) * Math.sqrt(view.zoom)) * ratio;
    const dots = [1, 1, 1.4].map((factor, wanted) =>
      colours.map((colour) => disc(colour, radius * factor, wanted === 2 ? colours.text : colours.ground)));
    const half = 14 * ratio;
    context.clearRect(0, 0, width, height);
    for (const row of order) {
      const [x, y] = [left + points.x[row] * step, top - points.y[row] * step];
      if (x < -half || y < -half || x > width + half || y > height + half) continue;
      if (pictures && level[row]) {
        context.fillStyle = colours[ink[row]];
        context.fillRect(x - half, y - half, 2 * half, 2 * half);
        context.drawImage(sprite, ...spriteCell(row), x - half + ratio, y - half + ratio, 2 * (half - ratio), 2 * (half - ratio));
      } else {
        const image = dots[level[row]][ink[row]];
        context.drawImage(image, Math.round(x - image.width / 2), Math.round(y - image.height / 2));
      }
    }
    drawSelection(pictures ? half * 1.5 : radius + 3 * ratio);
  }

  function drawSelection(radius) {
    const circle = (row, size) => {
      context.beginPath();
      context.arc(screenX(row) * ratio, screenY(row) * ratio, size, 0, 2 * Math.PI);
      context.stroke();
    };
    context.strokeStyle = colours.text;
    context.lineWidth = ratio;
    if (selected >= 0) {
      for (const other of neighborsOf(selected)) {
        context.beginPath();
        context.moveTo(screenX(selected) * ratio, screenY(selected) * ratio);
        context.lineTo(screenX(other) * ratio, screenY(other) * ratio);
        context.stroke();
        circle(other, radius);
      }
    }
    context.lineWidth = 2.5 * ratio;
    if (hovered >= 0) circle(hovered, radius);
    if (selected >= 0) circle(selected, radius + 2 * ratio);
  }

  function resize() {
    ratio = devicePixelRatio;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    draw(); // At once, since a canvas is empty after a change of its size.
  }

  // ---- Moving

  function zoomBy(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const [dx, dy] = [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2];
    const before = scale();
    view.zoom = clamp(view.zoom * factor, 1, MAX_ZOOM);
    moveBy(dx * (1 - scale() / before), dy * (1 - scale() / before)); // What is under the pointer stays there.
  }

  function moveBy(dx, dy) {
    view.x = clamp(view.x - dx / scale(), 0, WORLD);
    view.y = clamp(view.y + dy / scale(), 0, WORLD);
    canvas.classList.toggle("zoomed", view.zoom > 1);
    redraw();
  }

  function showAll() {
    Object.assign(view, { x: WORLD / 2, y: WORLD / 2, zoom: 1 });
    moveBy(0, 0);
  }

  let morph = 0;
  function changeLayout({ x, y }) {
    const from = { x: points.x.slice(), y: points.y.slice() };
    const duration = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 400;
    const started = performance.now();
    const step = () => {
      const time = duration ? Math.min(1, (performance.now() - started) / duration) : 1;
      const part = time * time * (3 - 2 * time);
      for (let row = 0; row < total; row++) {
        points.x[row] = from.x[row] + (x[row] - from.x[row]) * part;
        points.y[row] = from.y[row] + (y[row] - from.y[row]) * part;
      }
      draw();
      if (time < 1) morph = requestAnimationFrame(step);
    };
    cancelAnimationFrame(morph);
    step();
  }

  // ---- Finding and selecting

  // The row with the smallest cost(dx, dy) from a point of the screen. What is left out of the map is not found.
  function nearest(x, y, cost) {
    let [best, smallest] = [-1, Infinity];
    for (let row = 0; row < total; row++) {
      if (!level[row]) continue;
      const value = cost(screenX(row) - x, screenY(row) - y, row);
      if (value < smallest) [best, smallest] = [row, value];
    }
    return best;
  }

  const within = (radius) => (dx, dy) => (dx * dx + dy * dy <= radius * radius ? dx * dx + dy * dy : Infinity);

  function step(stepX, stepY) {
    const [x, y] = [screenX(selected), screenY(selected)];
    const row = nearest(x, y, (dx, dy) => {
      const [ahead, aside] = [dx * stepX + dy * stepY, Math.abs(dx * stepY) + Math.abs(dy * stepX)];
      return ahead > 0 && aside <= ahead ? dx * dx + dy * dy : Infinity; // The quarter of the plane on that side.
    });
    if (row >= 0) select(row);
  }

  const neighborsOf = (row) => data.neighbors?.[row] ?? [];

  function select(row) {
    selected = row;
    hover(-1);
    const [x, y] = row < 0 ? [0, 0] : [screenX(row), screenY(row)];
    if (row >= 0 && (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight)) {
      [view.x, view.y] = [points.x[row], points.y[row]];
    }
    showDetail();
    redraw();
  }

  function describe(row) {
    return columns.map((other) => `${other.name} ${valueText(other, row)}`).join(", ");
  }

  function hover(row, x = 0, y = 0) {
    if (row !== hovered) redraw();
    if (row >= 0 && row !== hovered) {
      tip.replaceChildren(thumbnail(row), make("bdi", {}, data.names[row]), make("span", {}, describe(row)));
    }
    hovered = row;
    tip.hidden = row < 0;
    if (row < 0) return;
    tip.style.left = `${clamp(x + 14, 0, Math.max(0, canvas.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${y + 20 + tip.offsetHeight > canvas.clientHeight ? y - 14 - tip.offsetHeight : y + 20}px`;
  }

  // ---- What stands beside the map

  function showDetail() {
    const detail = byId("map-detail");
    const refocus = detail.contains(document.activeElement);
    if (selected < 0) {
      detail.replaceChildren(make("p", { className: "map-empty" }, "Click an image to see it here, with its nearest neighbours."));
      say(count(total, "image"));
    } else {
      const facts = make("dl");
      for (const other of columns) facts.append(make("dt", {}, other.name), make("dd", {}, make("bdi", {}, valueText(other, selected))));
      detail.replaceChildren(make("div", { className: "map-selected" }, thumbnail(selected), make("bdi", {}, data.names[selected])), facts);
      const list = make("ol", { className: "map-neighbors" }, ...neighborsOf(selected).map(neighborItem));
      if (list.children.length) detail.append(make("h3", {}, "Nearest neighbours"), list);
      say(`${data.names[selected]} selected. ${describe(selected)}`);
    }
    if (refocus) detail.focus();
  }

  function neighborItem(row, rank) {
    const distance = data.distances?.[selected]?.[rank];
    const button = make("button", { type: "button", title: data.names[row] }, thumbnail(row),
      make("bdi", { className: "map-name" }, data.names[row].split("/").pop()));
    if (classes) {
      const other = classes.values[row] !== classes.values[selected];
      button.append(make("span", { className: other ? "map-other" : "" }, (other ? "≠ " : "") + valueText(classes, row)));
    }
    if (distance !== undefined) button.append(make("span", { className: "map-distance" }, distance.toFixed(3)));
    button.addEventListener("click", () => select(row));
    return make("li", {}, button);
  }

  function say(text) {
    byId("map-status").textContent = text;
  }

  function legendButton(code, size) {
    const name = code === null ? "unknown" : column.names[code];
    const swatch = make("span", { className: `map-swatch series-${inkOf(code) - SERIES + 1}` }); // PLAIN: series-0.
    const button = make("button", { type: "button", title: name }, swatch, make("bdi", { className: "map-name" }, name),
      make("span", { className: "map-count" }, size.toLocaleString("en")));
    button.setAttribute("aria-pressed", picked.has(code));
    button.addEventListener("click", () => pick(code));
    return button;
  }

  function pick(code) {
    const held = [...byId("map-legend").querySelectorAll("button")].indexOf(document.activeElement);
    const many = column.names.length > COLOURS;
    if (!picked.delete(code)) {
      const used = new Set(picked.values());
      let free = SERIES; // With more classes than colours, each picked one gets the first colour that no other has.
      while (used.has(free) && free < SERIES + COLOURS - 1) free++;
      picked.set(code, code === null ? PLAIN : many ? free : SERIES + code);
    }
    filter();
    const buttons = byId("map-legend").querySelectorAll("button");
    if (held >= 0) buttons[Math.min(held, buttons.length - 1)]?.focus(); // They are new ones.
  }

  function filter() {
    showLegend();
    paint();
    say(`${shown()} of ${count(total, "image")} shown`);
  }

  const shown = () => level.reduce((sum, value) => sum + (value > 0), 0).toLocaleString("en");

  function showLegend() {
    const legend = byId("map-legend");
    legend.replaceChildren();
    if (!column) return;
    if (!column.names) return legend.append(...rampLegend());
    const sizes = new Map();
    for (const code of column.values) sizes.set(code, (sizes.get(code) ?? 0) + 1);
    const codes = [...sizes.keys()].sort((a, b) => (a ?? Infinity) - (b ?? Infinity));
    const many = column.names.length > COLOURS;
    if (many) {
      const choice = make("select", {}, make("option", { value: "" }, `One of ${codes.length.toLocaleString("en")} …`));
      for (const code of codes) {
        if (!picked.has(code)) choice.append(make("option", { value: String(code) }, code === null ? "unknown" : column.names[code]));
      }
      choice.addEventListener("change", () => {
        pick(JSON.parse(choice.value));
        byId("map-legend").querySelector("select").focus();
      });
      legend.append(make("label", {}, "Show ", choice));
    }
    for (const code of codes) if (!many || picked.has(code)) legend.append(legendButton(code, sizes.get(code)));
    if (!picked.size) return;
    const all = make("button", { type: "button" }, "Show all");
    all.addEventListener("click", () => {
      picked.clear();
      filter();
    });
    legend.append(all);
  }

  function rampLegend() {
    const { low, high } = rampOf();
    const text = (value) => make("span", {}, Number(value.toPrecision(4)).toLocaleString("en"));
    return [make("div", { className: "map-ramp" }, text(low), make("span", { className: "map-bar" }), text(high))];
  }

  function search() {
    query = byId("map-search").value.trim().toLowerCase();
    const text = (row) => `${data.names[row]}\n${classes ? valueText(classes, row) : ""}`.toLowerCase();
    matches = query ? [...data.names.keys()].filter((row) => text(row).includes(query)) : [];
    paint();
    say(query ? `${count(matches.length, "match").replace("matchs", "matches")}` : count(total, "image"));
  }

  function selectNextMatch() {
    const open = matches.filter((row) => level[row]);
    if (!open.length) return;
    select(open.find((row) => row > selected) ?? open[0]);
    say(`Match ${open.indexOf(selected) + 1} of ${open.length}: ${data.names[selected]}. ${describe(selected)}`);
  }

  // ---- Controls

  function startControls() {
    for (const [index, name] of Object.keys(layouts).entries()) {
      const radio = make("input", { type: "radio", name: "map-layout", checked: index === 0 });
      radio.addEventListener("change", () => changeLayout(layouts[name]));
      byId("map-layouts").append(make("label", {}, radio, ` ${name}`));
    }
    byId("map-column").append(...columns.map(({ name }) => make("option", {}, name)));
    byId("map-column").parentElement.hidden = columns.length === 0;
    byId("map-column").addEventListener("change", ({ target }) => {
      column = columns[target.selectedIndex];
      picked.clear();
      filter();
    });
    byId("map-search").addEventListener("input", search);
    byId("map-controls").addEventListener("submit", (event) => {
      event.preventDefault(); // Enter in the search box.
      selectNextMatch();
    });
    const box = byId("map-pictures");
    box.disabled = true;
    box.addEventListener("change", () => {
      pictures = box.checked;
      redraw();
    });
    spriteReady.then(() => (box.disabled = false), () => {});
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => (Number(button.dataset.zoom) ? zoomBy(Number(button.dataset.zoom)) : showAll()));
    }
  }

  function startPointers() {
    const pointers = new Map(); // What is down: its id -> where it is.
    let travelled = 0; // Since the first went down: a click moves by less than a few pixels.
    const place = (event) => [event.clientX - canvas.getBoundingClientRect().left, event.clientY - canvas.getBoundingClientRect().top];
    const middle = () => [0, 1].map((axis) => [...pointers.values()].reduce((sum, at) => sum + at[axis], 0) / pointers.size);
    const spread = () => {
      const [[ax, ay], [bx, by]] = pointers.values();
      return Math.hypot(ax - bx, ay - by) || 1;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (pointers.size === 0) travelled = 0;
      pointers.set(event.pointerId, place(event));
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (!pointers.has(event.pointerId)) return hover(nearest(x, y, within(HIT_PX)), x, y);
      const [before, wide] = [middle(), pointers.size === 2 && spread()];
      pointers.set(event.pointerId, [x, y]);
      const [dx, dy] = middle().map((value, axis) => value - before[axis]);
      travelled += Math.hypot(dx, dy) + (wide ? HIT_PX : 0);
      if (travelled < 4) return;
      hover(-1);
      if (event.pointerType === "mouse" || view.zoom > 1 || wide) moveBy(dx, dy);
      if (wide) zoomBy(spread() / wide, ...middle());
    });
    canvas.addEventListener("pointerup", (event) => {
      if (pointers.has(event.pointerId) && travelled < 4) select(nearest(...place(event), within(HIT_PX)));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => hover(-1));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // The page scrolls.
      event.preventDefault();
      zoomBy(Math.exp(-clamp(event.deltaY, -200, 200) / 400), ...place(event));
    }, { passive: false });
  }

  const KEYS = {
    ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: showAll,
    Enter: () => select(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, within(Infinity))),
    Escape: () => select(-1),
  };

  function startKeys() {
    canvas.addEventListener("keydown", (event) => {
      const action = KEYS[event.key];
      if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      if (typeof action === "function") return action();
      if (selected >= 0 && !event.shiftKey) return step(...action);
      moveBy(-40 * action[0], -40 * action[1]);
    });
  }

  function start() {
    byId("map-off").hidden = true;
    byId("map-body").hidden = false;
    startControls();
    startPointers();
    startKeys();
    readColours();
    showLegend();
    showDetail();
    paint();
    new ResizeObserver(resize).observe(canvas);
    addEventListener("resize", resize); // The zoom of the browser, which need not change the size.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      readColours();
      redraw();
    });
  }

  start();
})();
