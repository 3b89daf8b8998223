"use strict";
// Shows the clips of the JSON above, a page at a time. All text goes in as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const [COLUMNS, ROWS] = JSON.parse(document.getElementById("sheet").textContent);
const SIZE = 20;
const SVG = "http://www.w3.org/2000/svg";
const { clips, classes, dimensions, variants, streams } = DATA;
const form = document.getElementById("filter");
const list = document.getElementById("list");
const pages = document.querySelectorAll(".pages");
const count = document.getElementById("count");
let found = [], page = 0;

function make(space, name, attributes = {}, ...inside) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...inside.filter((one) => one !== null && one !== undefined && one !== ""));
  return element;
}
const html = (name, attributes, ...inside) => make(null, name, attributes, ...inside);
const svg = (name, attributes, ...inside) => make(SVG, name, attributes, ...inside);
const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));

// What a variant says of a clip: its class, how sure it is, what it gives to the truth, whether it is right; the mean error.
function judge(clip, variant) {
  const chances = clip.chances && clip.chances[variant], values = clip.values && clip.values[variant];
  const told = { guess: null, sure: null, truth: null, right: null, error: null };
  if (chances) {
    told.guess = chances.indexOf(Math.max(...chances));
    told.sure = chances[told.guess] / 1000;
    if (clip.truth !== undefined) { told.truth = chances[clip.truth] / 1000; told.right = told.guess === clip.truth; }
  }
  if (values && clip.wanted) {
    const gaps = clip.wanted.map((value, k) => (value === null || values[k] === null ? null : Math.abs(value - values[k]))).filter((gap) => gap !== null);
    if (gaps.length) told.error = gaps.reduce((a, b) => a + b) / gaps.length;
  }
  return told;
}
const ORDERS = {
  mistake: ["surest mistake first", (a) => (a.right === null ? -1 : a.right ? 1 - a.sure : 1 + a.sure)],
  truth: ["truth least likely first", (a) => (a.truth === null ? -1 : 1 - a.truth)],
  error: ["largest error of dimensions first", (a) => (a.error === null ? -1 : a.error)],
  id: ["by name", null],
};
const orders = Object.keys(ORDERS).filter((name) => (name === "mistake" || name === "truth" ? classes.length : name !== "error" || dimensions.length));

function select(name, label, options) {
  const box = html("select", { name, id: "by-" + name }, ...options.map(([value, text]) => html("option", { value }, text)));
  form.append(html("label", { for: "by-" + name }, label, box));
}
const all = (text) => [["", text]];
const speakers = [...new Set(clips.map((clip) => clip.speaker).filter(Boolean))].sort();
if (classes.length) {
  select("truth", "Truth", [...all("every class"), ...classes.map((name, k) => [String(k), name])]);
  select("guess", "Prediction", [...all("every class"), ...classes.map((name, k) => [String(k), name])]);
}
if (speakers.length) select("speaker", "Speaker", [...all("every speaker"), ...speakers.map((name) => [name, name])]);
select("model", "Judged by", variants.map((name, k) => [String(k), name]));
if (classes.length) {
  select("verdict", "Decision", [...all("right or wrong"), ["wrong", "wrong"], ["right", "right"]]);
  if (variants.length > 1) select("other", "While", [...all("–"), ...variants.flatMap((name, k) => [[k + "right", name + " is right"], [k + "wrong", name + " is wrong"]])]);
}
select("order", "Order", orders.map((name) => [name, ORDERS[name][0]]));
form.append(html("label", { for: "by-words" }, "Words or name", html("input", { type: "search", name: "words", id: "by-words" })));
form.append(html("button", { type: "reset" }, "Show all"));

function choose() {
  const given = Object.fromEntries(new FormData(form)), model = Number(given.model || 0);
  const words = (given.words || "").toLowerCase().trim();
  const other = /^(\d+)(right|wrong)$/.exec(given.other || "");
  const kept = [];
  for (const clip of clips) {
    if (given.truth && clip.truth !== Number(given.truth)) continue;
    if (given.speaker && clip.speaker !== given.speaker) continue;
    if (words && !(clip.id + " " + (clip.said || "")).toLowerCase().includes(words)) continue;
    const told = judge(clip, model);
    if (given.guess && told.guess !== Number(given.guess)) continue;
    if (given.verdict && told.right !== (given.verdict === "right")) continue;
    if (other && judge(clip, Number(other[1])).right !== (other[2] === "right")) continue;
    kept.push([clip, told]);
  }
  const worth = ORDERS[given.order || orders[0]][1];
  const before = (a, b) => (a[0].id < b[0].id ? -1 : a[0].id > b[0].id ? 1 : 0);
  found = kept.map((one) => [worth ? worth(one[1]) : 0, one]).sort((a, b) => b[0] - a[0] || before(a[1], b[1])).map((one) => one[1]);
}

function picture(element, clip) {
  if (clip.picture) { element.style.background = `center / contain no-repeat url(${clip.picture})`; return true; }
  if (!clip.place) return false;
  const [sheet, place] = clip.place, column = place % COLUMNS, row = Math.floor(place / COLUMNS);
  element.style.backgroundImage = `url("clips/${String(sheet).padStart(3, "0")}.jpg")`;
  element.style.backgroundSize = `${100 * COLUMNS}% ${100 * ROWS}%`;
  element.style.backgroundPosition = `${(100 * column) / (COLUMNS - 1)}% ${(100 * row) / (ROWS - 1)}%`;
  return true;
}

// Nothing is read of a film before it is played.
function player(kind, clip, cursors) {
  const address = kind === "video" ? clip.video : clip.sound;
  const film = html(kind, { controls: "", preload: "none", src: address, "aria-label": (kind === "video" ? "Film of " : "Sound of ") + clip.id });
  film.addEventListener("timeupdate", () => cursors.forEach((move) => move(film.currentTime - (clip.begin || 0))));
  film.addEventListener("error", () => film.after(html("p", { class: "soft" }, "This browser cannot play it, or the file is not there: ", html("a", { href: address }, "open the file"), ".")), { once: true });
  return film;
}

// The picture of a film is the button that plays it; there is a player only of what was asked for.
function show_film(clip, cursors) {
  const button = html("button", { type: "button", class: "still", "aria-label": "Play " + clip.id }, html("span", {}, "Play"));
  picture(button, clip);
  button.addEventListener("click", () => {
    const film = player("video", clip, cursors);
    button.replaceWith(film);
    film.focus();
    film.play().catch(() => {});
  });
  return button;
}

function show_media(clip, cursors) {
  const box = html("div", { class: "media" });
  if (clip.video && /\.\w{2,5}(#|$)|^data:/.test(clip.video)) box.append(show_film(clip, cursors));
  else {
    const still = html("span", { class: "still", role: "img", "aria-label": "Picture of " + clip.id });
    if (picture(still, clip)) box.append(still);
    if (clip.video) box.append(html("p", {}, html("a", { href: clip.video }, "The pictures of " + clip.id)));
  }
  if (clip.sound) box.append(player("audio", clip, cursors));
  if (!clip.video && !clip.sound) box.append(html("p", { class: "soft" }, "No film and no sound."));
  const notes = [clip.side && "speaker: " + clip.side, clip.begin && `from ${fixed(clip.begin, 1)} s of the film`, clip.embedded && "inside this page"].filter(Boolean);
  if (notes.length) box.append(html("p", { class: "soft" }, notes.join("; ")));
  return box;
}

function show_table(clip, told) {
  const head = ["model", ...(classes.length ? ["prediction", "confidence", "of the truth"] : []), ...dimensions];
  const rows = variants.map((name, k) => {
    const one = judge(clip, k), values = clip.values && clip.values[k];
    if (one.guess === null && !values) return null;
    const cells = [html("th", { scope: "row" }, name)];
    if (classes.length) {
      cells.push(html("td", { class: one.right === false ? "bad" : null }, one.guess === null ? "–" : classes[one.guess] + (one.right === null ? "" : one.right ? " ✓" : " ✗")));
      cells.push(html("td", { class: "n" }, fixed(one.sure)), html("td", { class: "n" }, fixed(one.truth)));
    }
    dimensions.forEach((_, d) => cells.push(html("td", { class: "n" }, fixed(values && values[d]))));
    return html("tr", {}, ...cells);
  });
  if (clip.wanted) {
    const cells = [html("th", { scope: "row" }, "truth")];
    if (classes.length) cells.push(html("td", {}, clip.truth === undefined ? clip.other || "–" : classes[clip.truth]), html("td", {}), html("td", {}));
    rows.unshift(html("tr", { class: "main" }, ...cells, ...clip.wanted.map((value) => html("td", { class: "n" }, fixed(value)))));
  }
  const number = (k) => k > (classes.length ? 1 : 0);
  return html("div", { class: "scroll", role: "group", tabindex: "0", "aria-label": "Predictions of " + clip.id },
    html("table", {}, html("caption", {}, "What each model says"),
      html("thead", {}, html("tr", {}, ...head.map((text, k) => html("th", { scope: "col", class: number(k) ? "n" : null }, text)))),
      html("tbody", {}, ...rows)));
}

function show_chances(clip, told, model) {
  const chances = clip.chances && clip.chances[model];
  if (!chances) return null;
  const bars = chances.map((value, k) => [value, k]).sort((a, b) => b[0] - a[0]).map(([value, k]) => {
    const bar = html("i");
    bar.style.setProperty("--v", value / 1000);
    return html("tr", { class: k === clip.truth ? "main" : null }, html("th", { scope: "row" }, classes[k] + (k === clip.truth ? " (truth)" : "")), html("td", { class: "bar-cell" }, html("span", { class: "meter", "aria-hidden": "true" }, bar)), html("td", { class: "n" }, fixed(value / 1000)));
  });
  return html("details", {}, html("summary", {}, "Every class, " + variants[model]), html("table", {}, html("caption", {}, "Probabilities"), html("tbody", {}, ...bars)));
}

// Packed by `pack_times` and `pack_values`.
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const unpack_values = (text) => [...new Int8Array(bytes(text).buffer)].map((value) => (value === -128 ? null : value / 100));
const unpack_times = (text, [first, last]) => [...new Uint16Array(bytes(text).buffer)].map((share) => first + ((last - first) * share) / 65535);

const WIDE = 460, TALL = 120, LEFT = 40, FOOT = 26;
function show_trace(name, clip, cursors) {
  const { ends, lines } = clip.trace, [first, last] = ends, time = unpack_times(clip.trace.time, ends), [truth, predicted] = lines[name].map(unpack_values);
  const x = (t) => LEFT + ((t - first) / (last - first || 1)) * (WIDE - LEFT - 8), y = (v) => 8 + ((1 - Math.max(-1, Math.min(1, v))) / 2) * (TALL - FOOT - 8);
  const path = (values) => { let up = true; return values.map((v, k) => { if (v === null) { up = true; return ""; } const at = `${up ? "M" : "L"}${x(time[k]).toFixed(1)} ${y(v).toFixed(1)}`; up = false; return at; }).join(""); };
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, class: "plot", role: "img", "aria-label": `${name} of ${clip.id} over ${time.length} instants, truth and prediction` });
  for (const mark of [-1, 0, 1]) {
    drawing.append(svg("line", { x1: LEFT, x2: WIDE - 8, y1: y(mark), y2: y(mark), class: mark ? "grid" : "axis" }));
    drawing.append(svg("text", { x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end", class: "tick" }, fixed(mark, 0)));
  }
  drawing.append(svg("path", { d: path(truth), class: "curve truth" }), svg("path", { d: path(predicted), class: "curve s0" }));
  drawing.append(svg("text", { x: LEFT, y: TALL - 6, class: "tick" }, fixed(first, 1) + " s"), svg("text", { x: WIDE - 8, y: TALL - 6, "text-anchor": "end", class: "tick" }, fixed(last, 1) + " s"));
  const now = svg("line", { x1: LEFT, x2: LEFT, y1: 8, y2: TALL - FOOT, class: "now", visibility: "hidden" });
  drawing.append(now);
  cursors.push((t) => { const at = x(Math.max(first, Math.min(last, t))); now.setAttribute("x1", at); now.setAttribute("x2", at); now.setAttribute("visibility", "visible"); });
  return html("figure", {}, drawing, html("figcaption", {}, `${name}: dark the truth, blue the fusion`.replace("the fusion", variants[0])));
}

function show(clip, told, model, place) {
  const cursors = [], name = "clip-" + place;
  const title = html("h2", { id: name }, clip.id);
  if (told.right !== null) title.append(html("span", { class: "verdict " + (told.right ? "right" : "wrong") }, told.right ? "right" : "wrong"));
  const truth = clip.truth === undefined ? clip.other : classes[clip.truth];
  const facts = [clip.speaker && "speaker " + clip.speaker, truth && "truth " + truth, told.guess !== null && `${variants[model]} says ${classes[told.guess]} (${fixed(told.sure)})`, told.error !== null && `mean error ${fixed(told.error)}`].filter(Boolean);
  const body = html("div", {}, title, html("p", { class: "soft" }, facts.join(" · ")));
  if (clip.said) body.append(html("p", { class: "said" }, "“" + clip.said + "”", clip.heard ? html("small", { class: "soft" }, " (as recognised)") : null));
  if (clip.shares) body.append(html("p", {}, "How much the fusion lets each stream count: " + streams.map((stream, k) => `${stream} ${clip.shares[k]} %`).join(", ")));
  body.append(show_table(clip, told));
  const chances = show_chances(clip, told, model);
  if (chances) body.append(chances);
  const traces = clip.trace ? Object.keys(clip.trace.lines).map((one) => show_trace(one, clip, cursors)) : [];
  body.append(...traces);
  return html("li", {}, html("article", { class: "card clip", "aria-labelledby": name }, show_media(clip, cursors), body));
}

function draw(focus) {
  const model = Number(form.elements.model.value || 0), last = Math.max(0, Math.ceil(found.length / SIZE) - 1);
  page = Math.max(0, Math.min(page, last));
  const part = found.slice(page * SIZE, (page + 1) * SIZE);
  count.textContent = found.length ? `${found.length.toLocaleString("en")} of ${clips.length.toLocaleString("en")} clips; ${page * SIZE + 1} to ${page * SIZE + part.length} shown` : "No clip is like that.";
  list.replaceChildren(html("ol", {}, ...part.map(([clip, told], k) => show(clip, told, model, k))));
  const go = (text, to) => {
    const button = html("button", { type: "button" }, text);
    button.disabled = to < 0 || to > last || to === page;
    button.addEventListener("click", () => { page = to; draw(true); });
    return button;
  };
  for (const place of pages) place.replaceChildren(go("First", 0), go("Previous", page - 1), html("span", {}, `Page ${page + 1} of ${last + 1}`), go("Next", page + 1), go("Last", last));
  if (focus) { list.scrollIntoView(); list.focus({ preventScroll: true }); }
}

// The address says what is shown: #clip=NAME, or the fields of the form.
function read_address() {
  const given = new URLSearchParams(location.hash.slice(1)), clip = given.get("clip");
  for (const field of form.elements) if (field.name && given.has(field.name)) field.value = given.get(field.name);
  for (const field of form.elements) if (field.tagName === "SELECT" && field.selectedIndex < 0) field.selectedIndex = 0;
  choose();
  page = 0;
  if (clip !== null) { const at = found.findIndex((one) => one[0].id === clip); if (at >= 0) found = [found[at]]; else found = []; }
  draw(clip !== null);
}
function refresh() {
  const given = [...new FormData(form)].filter(([name, value]) => value && !(name === "model" && value === "0") && !(name === "order" && value === orders[0]));
  history.replaceState(null, "", given.length ? "#" + new URLSearchParams(given) : location.pathname + location.search);
  choose();
  page = 0;
  draw(false);
}
form.addEventListener("input", refresh);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(refresh));
addEventListener("hashchange", read_address);
read_address();
