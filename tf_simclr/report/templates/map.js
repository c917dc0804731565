// The map of the images, and the thumbnails anywhere on the page. It asks for no file: the points are JSON in
// #map-data, the thumbnails one picture in #sprite. Names are other people's text: they enter the page as text only.
(() => {
  "use strict";
  const COLOURS = 20; // As many as the stylesheet has: --series-1 ...
  const RAMP_STEPS = 32;
  // Inks are places in the list of colours: what the filter leaves out, what has no class, the series, the ramp.
  const [FAINT, PLAIN, SERIES, RAMP] = [0, 1, 2, 2 + COLOURS];
  const WORLD = 4096; // Coordinates are 0 ... 4095.
  const [MARGIN_PX, CLICK_PX, PICTURE_PX, MAX_ZOOM] = [24, 4, 32, 64];

  const byId = (id) => document.getElementById(id);
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const inPrint = (number) => Number(number.toPrecision(4)).toLocaleString("en");
  const images = (number) => `${number.toLocaleString("en")} image${number === 1 ? "" : "s"}`;

  if (!byId("map-data")) return;
  // A mark of direction turns the text after it around, and a tab looks like a space: names show the codes of both.
  const escaped = (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const readable = (text) => text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, escaped);
  const revive = (key, value) => (typeof value === "string" ? readable(value) : value);
  const data = JSON.parse(byId("map-data").textContent, revive);
  const total = data.names.length;
  const sprite = byId("sprite");
  const spriteReady = sprite ? sprite.decode().then(() => true, () => false) : Promise.resolve(false);

  // ---- Thumbnails: <canvas data-thumbnail="ROW">

  function cell(row) {
    const { size, columns } = data.sprite;
    return [(row % columns) * size, Math.floor(row / columns) * size, size, size];
  }

  function drawThumbnail(target) {
    const size = (target.width = target.height = data.sprite.size);
    target.getContext("2d").drawImage(sprite, ...cell(Number(target.dataset.thumbnail)), 0, 0, size, size);
  }

  function thumbnail(row) {
    const target = make("canvas", { className: "thumbnail", ariaHidden: "true" }); // Its name stands beside it.
    target.dataset.thumbnail = row;
    spriteReady.then((ready) => ready && drawThumbnail(target));
    return target;
  }

  // Draws those that the page came with as they come near.
  function drawThumbnailsInView() {
    const near = (entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
      drawThumbnail(target);
      observer.unobserve(target);
    });
    const observer = new IntersectionObserver(near, { rootMargin: "400px" });
    document.querySelectorAll("canvas[data-thumbnail]").forEach((target) => observer.observe(target));
  }

  // Print has all of them, and waits for nothing: what is loaded and not decoded yet is decoded as it is drawn.
  addEventListener("beforeprint", () => {
    if (sprite?.naturalWidth) document.querySelectorAll("canvas[data-thumbnail]").forEach(drawThumbnail);
  });
  spriteReady.then((ready) => ready && drawThumbnailsInView());
  if (!byId("map-canvas") || !total) return;

  // ---- State

  const columns = Object.entries(data.columns).map(([name, column]) => ({ name, ...column }));
  const classes = columns.find(({ name }) => name === "class");
  const view = { x: WORLD / 2, y: WORLD / 2, zoom: 1 };
  const points = { x: new Float32Array(total), y: new Float32Array(total) }; // As drawn, also between two layouts.
  const ink = new Uint8Array(total);
  const level = new Uint8Array(total); // 0: left out by legend or search, 1: shown, 2: found by the search.
  const order = new Int32Array(total); // Rows as they are drawn, by level.
  const picked = new Map(); // What the legend shows: the code of a class -> its ink. Empty: everything.
  let column = columns[0];
  let matches = null; // Rows that the search has found; null without a search.
  let selected = -1;
  let hovered = -1;
  let pictures = false;

  const canvas = byId("map-canvas");
  const context = canvas.getContext("2d");
  const [tip, legend, detail] = [byId("map-tip"), byId("map-legend"), byId("map-detail")];
  let ratio = 1; // Device pixels in a CSS pixel. All but the drawing counts in CSS pixels.
  let colours = [];
  const stamps = new Map();
  let raster; // An image of the canvas, and its pixels as numbers.
  let pixels;

  const middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
  const scale = () => ((2 * Math.min(...middle()) - 2 * MARGIN_PX) / WORLD) * view.zoom;
  const onScreen = (row) => {
    const [x, y] = middle();
    return [x + (points.x[row] - view.x) * scale(), y - (points.y[row] - view.y) * scale()];
  };
  const neighborsOf = (row) => data.neighbors[row] ?? [];
  const isMany = () => column.names.length > COLOURS;

  function valueText({ values, names }, row) {
    const value = values[row];
    return value === null ? "unknown" : names ? names[value] : inPrint(value);
  }

  const describe = (row) => columns.map((other) => `${other.name}: ${valueText(other, row)}`).join("; ");

  // ---- Colours

  // Colours are numbers as a canvas keeps them: 0xAABBGGRR.
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => {
      context.fillStyle = style.getPropertyValue(name); // Reads back as #rrggbb.
      const [red, green, blue] = [1, 3, 5].map((start) => parseInt(context.fillStyle.slice(start, start + 2), 16));
      return (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
    };
    const series = Array.from({ length: COLOURS }, (_, index) => read(`--series-${index + 1}`));
    const [low, high] = [read("--map-low"), read("--map-high")];
    const ramp = Array.from({ length: RAMP_STEPS }, (_, step) => mixed(low, high, (256 * step) / (RAMP_STEPS - 1)));
    colours = [read("--map-faint"), read("--map-plain"), ...series, ...ramp];
    [colours.text, colours.ground] = [read("--text"), read("--ground")];
    stamps.clear();
  }

  // `part` of 256 of the second colour over the first.
  function mixed(from, to, part) {
    const redBlue = ((from & 0xff00ff) * (256 - part) + (to & 0xff00ff) * part) >>> 8;
    const green = ((from & 0xff00) * (256 - part) + (to & 0xff00) * part) >>> 8;
    return (0xff000000 | (redBlue & 0xff00ff) | (green & 0xff00)) >>> 0;
  }

  const css = (colour) => `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

  function rangeOf(values) {
    const known = values.filter((value) => value !== null);
    return known.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  }

  function inkOf(code) {
    return code === null ? PLAIN : picked.get(code) ?? (isMany() ? PLAIN : SERIES + code);
  }

  function paint() {
    const found = matches && new Set(matches);
    const [low, high] = column?.names ? [] : rangeOf(column?.values ?? []);
    const onRamp = (value) => RAMP + Math.round(((value - low) / (high - low || 1)) * (RAMP_STEPS - 1));
    for (let row = 0; row < total; row++) {
      const value = column ? column.values[row] : null;
      const isOpen = (!picked.size || picked.has(value)) && (!found || found.has(row));
      level[row] = isOpen ? (found ? 2 : 1) : 0;
      ink[row] = !isOpen ? FAINT : value === null || column.names ? inkOf(value) : onRamp(value);
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
    frame ||= requestAnimationFrame(draw);
  }

  // The pixels of a disc around (0, 0): where, in which colour, and how much of each is covered, of 256.
  function stampOf(colour, edge, radius) {
    const key = `${colour} ${edge} ${radius}`;
    if (stamps.size > 1000) stamps.clear(); // Every zoom has sizes of its own.
    if (!stamps.has(key)) {
      const cells = [];
      const reach = Math.ceil(radius);
      const inside = (limit, distance) => Math.round(256 * clamp(limit + 0.5 - distance, 0, 1));
      for (let y = -reach; y <= reach; y++) {
        for (let x = -reach; x <= reach; x++) {
          const distance = Math.hypot(x, y);
          const cover = inside(radius, distance);
          if (cover) cells.push([x, y, mixed(edge, colour, inside(radius - ratio, distance)), cover]);
        }
      }
      const [x, y, inks, cover] = [0, 1, 2, 3].map((index) => Uint32Array.from(cells, (one) => one[index]));
      stamps.set(key, { x: new Int32Array(x.buffer), y: new Int32Array(y.buffer), inks, cover });
    }
    return stamps.get(key);
  }

  // A canvas without a graphics card takes some ten times as long for the same discs.
  function press(stamp, left, top) {
    const { width, height } = raster;
    for (let cell = 0; cell < stamp.x.length; cell++) {
      const x = left + stamp.x[cell];
      const y = top + stamp.y[cell];
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      const index = y * width + x;
      const cover = stamp.cover[cell];
      pixels[index] = cover === 256 ? stamp.inks[cell] : mixed(pixels[index], stamp.inks[cell], cover);
    }
  }

  function draw() {
    frame = 0;
    const { width, height } = canvas;
    const unit = scale() * ratio;
    const [left, top] = [width / 2 - view.x * unit, height / 2 + view.y * unit];
    const radius = Math.min(8, (total > 5000 ? 2 : total > 1000 ? 3.5 : 5) * Math.sqrt(view.zoom)) * ratio;
    const dots = [1, 1, 1.4].map((size, wanted) =>
      colours.map((colour) => stampOf(colour, wanted === 2 ? colours.text : colours.ground, radius * size)));
    pixels.fill(colours.ground);
    for (const row of order) {
      const x = left + points.x[row] * unit;
      const y = top - points.y[row] * unit;
      if (x < -20 || y < -20 || x > width + 20 || y > height + 20) continue;
      press(dots[level[row]][ink[row]], Math.round(x), Math.round(y));
    }
    context.putImageData(raster, 0, 0);
    if (pictures) drawPictures(unit, left, top);
    drawSelection(pictures ? 0.75 * PICTURE_PX * ratio : radius + 3 * ratio);
  }

  // Where there is room: one in every square of the map, those that the search has found first.
  function drawPictures(unit, left, top) {
    const size = PICTURE_PX * ratio;
    const taken = new Set();
    const drawPicture = (row) => {
      const [x, y] = [left + points.x[row] * unit - size / 2, top - points.y[row] * unit - size / 2];
      if (x < -size || y < -size || x > canvas.width || y > canvas.height) return;
      context.fillStyle = css(colours[ink[row]]); // A frame in the colour of the dot.
      context.fillRect(x, y, size, size);
      context.drawImage(sprite, ...cell(row), x + 2 * ratio, y + 2 * ratio, size - 4 * ratio, size - 4 * ratio);
    };
    for (let index = total - 1; index >= 0 && level[order[index]]; index--) {
      const row = order[index];
      const square = Math.floor((points.x[row] * unit) / size) * 1e6 + Math.floor((points.y[row] * unit) / size);
      if (!taken.has(square)) drawPicture(row);
      taken.add(square);
    }
    if (selected >= 0) [...neighborsOf(selected), selected].forEach(drawPicture); // On top of all others.
  }

  function drawSelection(radius) {
    const place = (row) => onScreen(row).map((value) => value * ratio);
    const stroke = (width, path) => {
      context.lineWidth = width * ratio;
      context.beginPath();
      path();
      context.stroke();
    };
    const circle = (row, size) => context.arc(...place(row), size, 0, 2 * Math.PI);
    context.strokeStyle = css(colours.text);
    for (const other of selected < 0 ? [] : neighborsOf(selected)) {
      stroke(1, () => {
        context.moveTo(...place(selected));
        context.lineTo(...place(other));
      });
      stroke(1, () => circle(other, radius));
    }
    if (selected >= 0) stroke(2.5, () => circle(selected, radius + 2 * ratio));
    if (hovered >= 0) stroke(2.5, () => circle(hovered, radius));
  }

  function resize() {
    ratio = devicePixelRatio;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    raster = context.createImageData(canvas.width, canvas.height);
    pixels = new Uint32Array(raster.data.buffer);
    draw(); // At once: a canvas of a new size is empty.
  }

  // ---- Moving

  function moveBy(dx, dy) {
    view.x = clamp(view.x - dx / scale(), 0, WORLD);
    view.y = clamp(view.y + dy / scale(), 0, WORLD);
    canvas.classList.toggle("zoomed", view.zoom > 1);
    redraw();
  }

  // What is at (x, y) stays there.
  function zoomBy(factor, [x, y] = middle()) {
    const before = scale();
    view.zoom = clamp(view.zoom * factor, 1, MAX_ZOOM);
    const shift = 1 - scale() / before;
    moveBy((x - middle()[0]) * shift, (y - middle()[1]) * shift);
  }

  function showAll() {
    Object.assign(view, { x: WORLD / 2, y: WORLD / 2, zoom: 1 });
    moveBy(0, 0);
  }

  let morph = 0;
  function moveTo({ x, y }, duration_ms) {
    const [fromX, fromY, start] = [points.x.slice(), points.y.slice(), performance.now()];
    const step = () => {
      const time = duration_ms ? Math.min(1, (performance.now() - start) / duration_ms) : 1;
      const part = time * time * (3 - 2 * time); // Starts and ends slowly.
      for (let row = 0; row < total; row++) {
        points.x[row] = fromX[row] + (x[row] - fromX[row]) * part;
        points.y[row] = fromY[row] + (y[row] - fromY[row]) * part;
      }
      redraw();
      if (time < 1) morph = requestAnimationFrame(step);
    };
    cancelAnimationFrame(morph);
    step();
  }

  // ---- Finding and selecting

  // The row with the least cost(dx, dy) as seen from a place on the screen, among those that are shown; -1 if none.
  function nearest([x, y], cost) {
    const unit = scale();
    const [left, top] = [middle()[0] - view.x * unit - x, middle()[1] + view.y * unit - y];
    let [best, least] = [-1, Infinity];
    for (let row = 0; row < total; row++) {
      if (!level[row]) continue;
      const value = cost(left + points.x[row] * unit, top - points.y[row] * unit);
      if (value < least) [best, least] = [row, value];
    }
    return best;
  }

  function at(place) {
    const reach = pictures ? 0.75 * PICTURE_PX : 14;
    return nearest(place, (dx, dy) => (Math.hypot(dx, dy) <= reach ? Math.hypot(dx, dy) : Infinity));
  }

  // To the nearest image in the quarter of the plane on that side.
  function stepTo(stepX, stepY) {
    const row = nearest(onScreen(selected), (dx, dy) => {
      const [ahead, aside] = [dx * stepX + dy * stepY, Math.abs(dx * stepY + dy * stepX)];
      return ahead > 0 && aside <= ahead ? dx * dx + dy * dy : Infinity;
    });
    if (row >= 0) select(row);
  }

  function select(row) {
    selected = row;
    hover(-1);
    if (row >= 0) {
      const [x, y] = onScreen(row);
      const isInside = x >= 0 && y >= 0 && x <= canvas.clientWidth && y <= canvas.clientHeight;
      if (!isInside) [view.x, view.y] = [points.x[row], points.y[row]];
    }
    showDetail();
    say(row < 0 ? images(total) : `${data.names[row]} – ${describe(row)}`);
    redraw();
  }

  function hover(row, [x, y] = [0, 0]) {
    tip.hidden = row < 0;
    if (row !== hovered) {
      hovered = row;
      const texts = row < 0 ? [] : [data.names[row], describe(row)];
      if (row >= 0) tip.replaceChildren(thumbnail(row), ...texts.map((text) => make("bdi", {}, text)));
      redraw();
    }
    if (row < 0) return;
    const below = y + 20;
    tip.style.left = `${clamp(x + 14, 0, Math.max(0, canvas.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${below + tip.offsetHeight > canvas.clientHeight ? y - 14 - tip.offsetHeight : below}px`;
  }

  function search() {
    const query = byId("map-search").value.trim().toLowerCase();
    const text = (row) => `${data.names[row]}\n${classes ? valueText(classes, row) : ""}`.toLowerCase();
    matches = query ? [...data.names.keys()].filter((row) => text(row).includes(query)) : null;
    paint();
    say(query ? `${images(matches.length)} found` : images(total));
  }

  function selectNextMatch() {
    const open = matches?.filter((row) => level[row]) ?? [];
    if (!open.length) return;
    select(open.find((row) => row > selected) ?? open[0]);
    say(`${open.indexOf(selected) + 1} of ${open.length}: ${data.names[selected]} – ${describe(selected)}`);
  }

  // ---- What stands beside the map

  function say(text) {
    byId("map-status").textContent = text;
  }

  function showDetail() {
    const hadFocus = detail.contains(document.activeElement);
    if (selected < 0) {
      const hint = "Pick an image to see it and its nearest neighbours.";
      detail.replaceChildren(make("p", { className: "map-empty" }, hint));
    } else {
      const facts = columns.flatMap((other) =>
        [make("dt", {}, other.name), make("dd", {}, make("bdi", {}, valueText(other, selected)))]);
      const neighbors = neighborsOf(selected).map(neighborItem);
      const name = make("bdi", {}, data.names[selected]);
      const title = make("div", { className: "map-selected" }, thumbnail(selected), name);
      detail.replaceChildren(title, make("dl", {}, ...facts));
      if (neighbors.length) {
        detail.append(make("h3", {}, "Nearest neighbours"), make("ol", { className: "map-neighbors" }, ...neighbors));
      }
    }
    if (hadFocus) detail.focus(); // The button that had it is gone.
  }

  function neighborItem(row, rank) {
    const name = data.names[row];
    const distance = data.distances[selected][rank].toFixed(3);
    const button = make("button", { type: "button", title: `${name}\n${describe(row)}` }, thumbnail(row));
    button.append(make("bdi", { className: "hidden" }, name));
    if (classes) {
      const className = classes.values[row] === classes.values[selected] ? "map-name" : "map-name map-other";
      button.append(make("bdi", { className }, valueText(classes, row)));
    }
    button.append(make("span", { className: "map-number" }, distance));
    button.addEventListener("click", () => select(row));
    return make("li", {}, button);
  }

  function pick(code) {
    if (!picked.delete(code)) {
      const used = new Set(picked.values());
      let free = SERIES; // Of more classes than colours, each gets the first colour that no other has.
      while (used.has(free) && free < RAMP - 1) free++;
      picked.set(code, code === null ? PLAIN : isMany() ? free : SERIES + code);
    }
    filter();
  }

  function filter() {
    const held = [...legend.querySelectorAll("button, select")].indexOf(document.activeElement);
    showLegend();
    const controls = legend.querySelectorAll("button, select");
    if (held >= 0) controls[Math.min(held, controls.length - 1)].focus(); // The control that had it is gone.
    paint();
    say(`${level.reduce((sum, value) => sum + (value > 0), 0).toLocaleString("en")} of ${images(total)} shown`);
  }

  function showLegend() {
    legend.replaceChildren();
    if (!column) return;
    if (!column.names) {
      const ends = rangeOf(column.values).map((value) => make("span", { className: "map-number" }, inPrint(value)));
      legend.append(ends[0], make("span", { className: "map-bar" }), ends[1]);
      return;
    }
    const counts = new Map();
    for (const code of column.values) counts.set(code, (counts.get(code) ?? 0) + 1);
    const codes = [...counts.keys()].sort((a, b) => (a ?? Infinity) - (b ?? Infinity));
    if (isMany()) legend.append(legendChoice(codes.filter((code) => !picked.has(code))));
    for (const code of codes) if (!isMany() || picked.has(code)) legend.append(legendButton(code, counts.get(code)));
    if (!picked.size) return;
    const all = make("button", { type: "button" }, "Clear the filter");
    all.addEventListener("click", () => {
      picked.clear();
      filter();
    });
    legend.append(all);
  }

  const codeName = (code) => (code === null ? "unknown" : column.names[code]);

  function legendButton(code, number) {
    const name = make("bdi", { className: "map-name" }, codeName(code));
    const swatch = make("span", { className: `map-swatch series-${inkOf(code) - PLAIN}` });
    const size = make("span", { className: "map-number" }, number.toLocaleString("en"));
    const pressed = String(picked.has(code));
    const button = make("button", { type: "button", title: codeName(code), ariaPressed: pressed }, swatch, name, size);
    button.addEventListener("click", () => pick(code));
    return button;
  }

  function legendChoice(codes) {
    const choice = make("select", {}, make("option", {}, `choose from ${codes.length.toLocaleString("en")}`));
    choice.append(...codes.map((code) => make("option", {}, codeName(code))));
    choice.addEventListener("change", () => pick(codes[choice.selectedIndex - 1]));
    return make("label", {}, "Show ", choice);
  }

  // ---- Controls

  function startControls() {
    for (const [index, [name, layout]] of Object.entries(data.layouts).entries()) {
      const radio = make("input", { type: "radio", name: "map-layout", checked: index === 0 });
      const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
      radio.addEventListener("change", () => moveTo(layout, isStill() ? 0 : 400));
      byId("map-layouts").append(make("label", {}, radio, name));
    }
    byId("map-column").append(...columns.map(({ name }) => make("option", {}, name)));
    byId("map-column").parentElement.hidden = !columns.length;
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
    byId("map-pictures").addEventListener("change", ({ target }) => {
      pictures = target.checked;
      redraw();
    });
    spriteReady.then((ready) => (byId("map-pictures").disabled = !ready));
    byId("map-in").addEventListener("click", () => zoomBy(1.5));
    byId("map-out").addEventListener("click", () => zoomBy(1 / 1.5));
    byId("map-all").addEventListener("click", showAll);
  }

  function startPointers() {
    const down = new Map(); // The pointers that are down: their ids -> where they are.
    let travelled = 0; // Since the first of them went down.
    const place = (event) => {
      const { left, top } = canvas.getBoundingClientRect();
      return [event.clientX - left - canvas.clientLeft, event.clientY - top - canvas.clientTop];
    };
    const centre = () => [0, 1].map((axis) => [...down.values()].reduce((sum, one) => sum + one[axis], 0) / down.size);
    const spread = () => {
      const [[ax, ay], [bx, by]] = down.values();
      return Math.hypot(ax - bx, ay - by) || 1;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (!down.size) travelled = 0;
      down.set(event.pointerId, place(event));
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!down.has(event.pointerId)) return hover(at(place(event)), place(event));
      const [before, wide] = [centre(), down.size === 2 ? spread() : 0];
      down.set(event.pointerId, place(event));
      const [dx, dy] = centre().map((value, axis) => value - before[axis]);
      travelled += Math.hypot(dx, dy) + (wide ? CLICK_PX : 0);
      if (travelled < CLICK_PX) return;
      hover(-1);
      // One finger scrolls the page while all of the map is in view.
      if (wide || view.zoom > 1 || event.pointerType === "mouse") moveBy(dx, dy);
      if (wide) zoomBy(spread() / wide, centre());
    });
    canvas.addEventListener("pointerup", (event) => {
      if (down.delete(event.pointerId) && travelled < CLICK_PX) select(at(place(event)));
    });
    canvas.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => hover(-1));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // The page scrolls.
      event.preventDefault();
      zoomBy(Math.exp(-clamp(event.deltaY, -200, 200) / 400), place(event));
    }, { passive: false });
  }

  function startKeys() {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const actions = {
      "+": () => zoomBy(1.5),
      "=": () => zoomBy(1.5), // The key of "+" without shift.
      "-": () => zoomBy(1 / 1.5),
      "0": showAll,
      Enter: () => select(nearest(middle(), Math.hypot)),
      Escape: () => select(-1),
    };
    canvas.addEventListener("keydown", (event) => {
      const [arrow, action] = [arrows[event.key], actions[event.key]];
      if (event.ctrlKey || event.altKey || event.metaKey || !(arrow || action)) return;
      event.preventDefault();
      if (action) action();
      else if (selected >= 0 && !event.shiftKey) stepTo(...arrow);
      else moveBy(-40 * arrow[0], -40 * arrow[1]);
    });
  }

  // A click on a thumbnail elsewhere finds the image here. The search box does it by keyboard.
  function startThumbnails() {
    for (const target of document.querySelectorAll("canvas[data-thumbnail]")) {
      target.classList.add("map-link");
      target.addEventListener("click", () => {
        select(Number(target.dataset.thumbnail));
        byId("map-stage").scrollIntoView({ block: "center" });
      });
    }
  }

  byId("map-off").hidden = true;
  byId("map-body").hidden = false;
  readColours();
  resize();
  startControls();
  startPointers();
  startKeys();
  startThumbnails();
  moveTo(Object.values(data.layouts)[0], 0);
  showLegend();
  paint();
  select(-1);
  new ResizeObserver(resize).observe(canvas);
  addEventListener("resize", resize); // The browser's zoom changes the ratio, and not always the size.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    redraw();
  });
})();
