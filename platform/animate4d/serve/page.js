"use strict";

const at = (id) => document.getElementById(id);
const element = (name, text = "", facts = {}) => Object.assign(document.createElement(name), { textContent: text, ...facts });
const STAGES = { load: "Read the model", views: "Look at it", video: "Imagine a video", fit: "Fit the motion", export: "Write the files", pictures: "Film the result" };
const KEPT = "animate4d.jobs";
const MAX_KEPT = 30;
const SIGNED_IN = "animate4d.signed-in";
let stream = null, shown = null, cancelling = null;

// Asking without a token would only be refused.
const mayAsk = () => at("token-field").hidden || at("token").value || sessionStorage.getItem(SIGNED_IN);

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (at("token").value) headers.Authorization = "Bearer " + at("token").value;
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) sessionStorage.removeItem(SIGNED_IN);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({ detail: "the service answers " + answer.status }));
  throw Object.assign(new Error(problem.detail), { status: answer.status });
}

function size(bytes) {
  return bytes < 1e6 ? Math.ceil(bytes / 1e3) + " kB" : (bytes / 1e6).toFixed(1) + " MB";
}

function duration(seconds) {
  return seconds < 90 ? Math.max(1, Math.round(seconds)) + " s" : Math.round(seconds / 60) + " min";
}

// The file

function showFile() {
  const file = at("asset").files[0];
  at("name").textContent = file ? `${file.name}, ${size(file.size)}` : "Drop a 3D model here, or choose one";
}
at("asset").addEventListener("change", showFile);
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind !== "dragleave" && kind !== "drop");
    if (kind === "drop" && event.dataTransfer.files.length) {
      at("asset").files = event.dataTransfer.files;
      showFile();
      at("prompt").focus();
    }
  });
}

// A new animation

let key = null; // stays the same while the same form is sent again, so that a lost answer makes no second job
at("form").addEventListener("input", () => { key = null; });
at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("refused").hidden = true;
  at("go").disabled = true;
  at("go").textContent = "Uploading";
  key ??= Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    await signIn();
    const job = await call("v1/animations", { method: "POST", body: new FormData(at("form")), headers: { "Idempotency-Key": key } });
    key = null;
    keep(job);
    open(job, true);
  } catch (error) {
    at("refused").textContent = error.status ? error.message : "The service cannot be reached.";
    at("refused").hidden = false;
    if (error.status === 401) at("token").focus();
  }
  at("go").disabled = false;
  at("go").textContent = "Animate";
});

// The token becomes a cookie for what the browser loads by itself: events, pictures, the viewer, downloads.
async function signIn() {
  if (!at("token").value) return;
  await call("v1/session", { method: "POST" });
  sessionStorage.setItem(SIGNED_IN, "yes");
}
at("token").addEventListener("change", () => signIn().then(start, () => {}));

async function tellEstimate() {
  if (!mayAsk()) return;
  const options = new URLSearchParams({ fit: at("form").fit.value, clips: at("form").clips.value || 1 });
  const { wait_seconds, work_seconds } = await call("v1/estimate?" + options).catch(() => ({}));
  const wait = wait_seconds > 5 ? `, after ${duration(wait_seconds)} in the queue` : "";
  at("estimate").textContent = work_seconds ? `about ${duration(work_seconds)}${wait}` : "";
}
for (const name of ["fit", "clips"]) at("form")[name].addEventListener("change", tellEstimate);

// One animation

function open(job, jump = false) {
  stream?.close();
  shown = job.id;
  for (const id of ["viewer", "video", "preview"]) {
    at(id).hidden = true;
    at(id).removeAttribute("src");
  }
  history.replaceState(null, "", "#" + job.id);
  show(job);
  if (jump) {
    at("job").scrollIntoView({ block: "nearest" });
    at("title").focus();
  }
  if (job.state !== "queued" && job.state !== "running") return;
  stream = new EventSource(job.links.events);
  for (const state of ["queued", "running", "done", "failed", "cancelled"]) {
    stream.addEventListener(state, (event) => {
      const now = JSON.parse(event.data);
      if (now.id !== shown) return;
      show(now);
      if (state !== "queued" && state !== "running") {
        stream.close();
        tellEstimate();
      }
    });
  }
}

function show(job) {
  const works = job.state === "queued" || job.state === "running";
  at("job").hidden = false;
  at("title").firstElementChild.textContent = job.request.prompt;
  at("origin").textContent = `${job.request.asset}, seed ${job.request.seed}`;
  at("status").dataset.state = job.state;
  at("status").textContent = sentence(job);
  at("work").hidden = !works;
  at("bar").value = job.progress;
  const names = Object.keys(STAGES), now = names.indexOf(job.stage);
  at("stages").replaceChildren(...names.map((name, number) => {
    const item = element("li", STAGES[name], { className: number < now ? "past" : "" });
    if (number === now) item.setAttribute("aria-current", "step");
    return item;
  }));
  if (works && job.links.preview && at("preview").getAttribute("src") !== job.links.preview) {
    at("preview").src = job.links.preview;
    at("preview").hidden = false;
  }
  at("result").hidden = job.state !== "done";
  at("alone").hidden = !job.links.viewer;
  at("drop-job").textContent = works ? "Cancel" : "Delete";
  at("drop-job").disabled = works && job.id === cancelling;
  if (job.state === "done" && !at("viewer").src && !at("video").src) showResult(job);
  note(job);
}

function sentence(job) {
  const left = job.estimate_seconds ? `, about ${duration(job.estimate_seconds)} left` : "";
  if (job.id === cancelling && (job.state === "queued" || job.state === "running")) return "Cancelling";
  if (job.state === "queued") return "Waiting for its turn" + left;
  if (job.state === "running") return (STAGES[job.stage] ?? "Starting") + left;
  return { done: "Done", failed: "Failed: " + job.error, cancelled: "Cancelled" }[job.state];
}

function showResult(job) {
  if (job.links.viewer) {
    at("viewer").src = at("alone").href = job.links.viewer;
    at("viewer").hidden = false;
  }
  const views = job.files.find((file) => file.name === "views.mp4");
  if (views) {
    at("video").src = views.href;
    at("video").hidden = false;
  }
  at("files").replaceChildren(...job.files.map((file) => {
    const link = element("a", file.name, { href: file.href, download: file.name, title: "sha256 " + file.sha256 });
    link.append(element("span", size(file.bytes)));
    const item = element("li");
    item.append(link);
    return item;
  }));
}

at("drop-job").addEventListener("click", async () => {
  at("drop-job").disabled = true;
  try {
    const { id, state } = await call("v1/animations/" + shown, { method: "DELETE" });
    if (state === "removed") forget(id);
    else {
      cancelling = id;
      at("status").textContent = "Cancelling";
    }
  } catch (error) {
    at("status").textContent = error.message;
    at("drop-job").disabled = false;
  }
});

// Earlier ones

const kept = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]");

function keep(job) {
  const others = kept().filter((one) => one.id !== job.id);
  const one = { id: job.id, prompt: job.request.prompt, asset: job.request.asset, state: job.state };
  localStorage.setItem(KEPT, JSON.stringify([one, ...others].slice(0, MAX_KEPT)));
  list();
}

function note(job) {
  const all = kept(), one = all.find((one) => one.id === job.id);
  if (one && one.state !== job.state) {
    one.state = job.state;
    localStorage.setItem(KEPT, JSON.stringify(all));
  }
  list();
}

function forget(id) {
  localStorage.setItem(KEPT, JSON.stringify(kept().filter((one) => one.id !== id)));
  list();
  if (shown !== id) return;
  shown = null;
  at("job").hidden = true;
  history.replaceState(null, "", "#");
  at("prompt").focus();
}

function list() {
  const all = kept();
  at("earlier").hidden = all.length === 0;
  if (at("list").contains(document.activeElement)) return; // would take the focus away
  at("list").replaceChildren(...all.map((one) => {
    const button = element("button", "", { type: "button" });
    button.append(element("bdi", one.prompt), element("span", one.state, { className: "dim" }), element("span", one.asset, { className: "dim" }));
    if (one.id === shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => load(one.id, true));
    const item = element("li");
    item.append(button);
    return item;
  }));
}

async function load(id, jump) {
  try {
    open(await call("v1/animations/" + id), jump);
  } catch (error) {
    if (error.status === 404) forget(id);
  }
}

async function start() {
  list();
  const wanted = location.hash.slice(1);
  if (mayAsk() && /^[0-9a-f]{32}$/.test(wanted)) await load(wanted, false);
  await tellEstimate();
}
start();
