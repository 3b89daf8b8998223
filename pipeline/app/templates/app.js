"use strict";
const page = document.getElementById("page"), find = (id) => document.getElementById(id);
const names = page.dataset.dimensions.split(" ").filter(Boolean), SECONDS = 2;
let recording = null, course = [];

function say(text, wrong = false) {
  find("state").textContent = text;
  find("state").className = wrong ? "wrong" : "";
}

async function ask(address, body) {
  const answer = await fetch(address, { method: "POST", body, headers: { "X-Affectory": page.dataset.token } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function row(name, width, text) {
  const made = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  made.append(head);
  if (width !== null) {
    const cell = document.createElement("td"), bar = document.createElement("span");
    cell.className = "bar";
    bar.style.width = `${100 * width}%`;
    cell.append(bar);
    made.append(cell);
  }
  const cell = document.createElement("td");
  cell.textContent = text;
  made.append(cell);
  return made;
}

function show(found) {
  find("answer").hidden = false;
  const chances = Object.entries(found.emotions);
  find("emotions").tBodies[0].replaceChildren(...chances.map(([name, p]) => row(name, p, `${(100 * p).toFixed(0)} %`)),
    ...names.filter((name) => name in found).map((name) => row(name, null, found[name].toFixed(2))));
  const streams = Object.entries(found.streams).map(([name, one]) => {
    if (one.status !== "ok") return row(name, null, one.reason || one.status);
    return one.share === null ? row(name, null, "read") : row(name, one.share, `${(100 * one.share).toFixed(0)} %`);
  });
  find("streams").tBodies[0].replaceChildren(...streams);
  find("heard").textContent = found.heard ? `Heard: ${found.heard}` : "";
}

function draw(times, values) {
  const shown = names.filter((name) => values[name] && values[name].length > 1);
  find("course").hidden = !shown.length;
  if (!shown.length) return;
  const space = "http://www.w3.org/2000/svg", make = (kind, about, text = "") => {
    const made = document.createElementNS(space, kind);
    for (const [key, value] of Object.entries(about)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const end = times[times.length - 1] || 1, svg = make("svg", { viewBox: "0 0 900 240", role: "img" });
  svg.setAttribute("aria-label", shown.map((name) => `${name} from ${values[name][0]} to ${values[name].at(-1)}`).join("; "));
  for (const level of [-1, 0, 1]) {
    const y = 120 - 100 * level;
    svg.append(make("line", { class: "grid", x1: 40, x2: 890, y1: y, y2: y }), make("text", { x: 8, y: y + 4 }, String(level)));
  }
  svg.append(make("text", { x: 850, y: 238 }, `${end.toFixed(1)} s`));
  shown.forEach((name, place) => {
    const points = values[name].map((v, i) => `${40 + (850 * times[i]) / end},${120 - 100 * v}`).join(" ");
    const line = make("polyline", { points });
    line.style.stroke = `var(--s${place})`;
    const word = make("text", { x: 50 + 110 * place, y: 14 }, name);
    word.style.fill = `var(--s${place})`;
    svg.append(line, word);
  });
  find("lines").replaceChildren(svg);
}

async function judge(file) {
  const player = find("player"), text = find("text").value;
  if (player.src) URL.revokeObjectURL(player.src);
  say(`${file.name} …`);
  try {
    const found = await ask(`/film?${new URLSearchParams({ name: file.name, text })}`, file);
    player.srcObject = null;
    player.src = URL.createObjectURL(file);
    player.hidden = false;
    show(found);
    if (found.trace) draw(found.trace.start.map((t, i) => (t + found.trace.end[i]) / 2), found.trace);
    else find("course").hidden = true;
    say(file.name);
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
}

async function piece(stream, kind) {
  const recorder = new MediaRecorder(stream, { mimeType: kind }), parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const done = new Promise((end) => (recorder.onstop = end));
  recorder.start();
  await new Promise((end) => setTimeout(end, 1000 * SECONDS));
  if (recorder.state !== "inactive") recorder.stop();
  await done;
  return new Blob(parts, { type: kind });
}

async function follow(stream, kind) {
  while (recording === stream) {
    const recorded = await piece(stream, kind);
    if (recording !== stream) return;
    // The next piece is recorded while this one is judged.
    ask("/piece?name=piece.webm", recorded).then((found) => {
      course.push(found);
      show(found);
      draw(course.map((one) => (one.start + one.end) / 2), Object.fromEntries(names.map((name) => [name, course.map((one) => one[name])])));
      say(`${found.end.toFixed(0)} s; the last ${SECONDS} s took ${(1000 * found.latency).toFixed(0)} ms`);
    }, (error) => say(error.message, true));
  }
}

function stop() {
  for (const track of recording ? recording.getTracks() : []) track.stop();
  recording = null;
  for (const id of ["record", "listen"]) find(id).setAttribute("aria-pressed", "false");
  say("");
}

async function start(button, video) {
  const was = button.getAttribute("aria-pressed") === "true";
  stop();
  if (was) return;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video });
    await ask("/forget");
    course = [];
    recording = stream;
    button.setAttribute("aria-pressed", "true");
    find("player").hidden = !video;
    if (video) {
      find("player").srcObject = stream;
      find("player").muted = true;
      find("player").play();
    }
    follow(stream, video ? "video/webm;codecs=vp8,opus" : "audio/webm;codecs=opus");
    say("…");
  } catch (error) {
    say(`No ${video ? "camera or " : ""}microphone: ${error.message}`, true);
  }
}

find("film").addEventListener("change", (event) => event.target.files[0] && judge(event.target.files[0]));
find("record").addEventListener("click", () => start(find("record"), true));
find("listen").addEventListener("click", () => start(find("listen"), false));
for (const kind of ["dragover", "dragleave", "drop"])
  find("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) judge(event.dataTransfer.files[0]);
  });
