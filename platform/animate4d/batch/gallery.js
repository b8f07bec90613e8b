"use strict";
const STEP = 60;  // entries put on the page at a time: ten thousand cards at once would keep a browser busy for a minute
const cards = entriesOf(document.querySelector(".cards"));
const problems = entriesOf(document.querySelector(".problems .list"));
const more = document.getElementById("more");
const search = document.getElementById("search");
const pause = document.getElementById("pause");
let filter = "all";
let order = cards;
let shownEverywhere = "result";
let chosen = [];
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;

// What does not fit the first screens waits in a template, which a browser reads without laying it out.
function entriesOf(list) {
  if (!list) return [];
  const rest = list.querySelector("template");
  const entries = [...list.children, ...(rest ? rest.content.children : [])].filter((entry) => entry !== rest);
  if (rest) rest.remove();
  return entries;
}

function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
}

function shown(card) {
  return card.querySelector('.pick [aria-pressed="true"]').dataset.show;
}

// A browser allows some tens of players per page, so only cards on screen have a source.
function update(card) {
  const media = card.querySelector(".media");
  const player = media.querySelector(".play");
  const show = shown(card);
  const source = show === "still" || !card.classList.contains("seen") ? "" : player.dataset[show];
  if (player.tagName === "IMG") {
    media.classList.toggle("playing", show !== "still");
    return;
  }
  if (!source) {
    media.classList.remove("playing");
    if (player.hasAttribute("src")) {
      player.pause();
      player.removeAttribute("src");
      player.load();
    }
    return;
  }
  if (player.getAttribute("src") !== source) player.src = source;
  if (paused) player.pause();
  // A play() cut off by the next load or pause rejects; that is no failure.
  else player.play().catch(() => {});
}

function prepare(card) {
  const media = card.querySelector(".media");
  const player = media.querySelector("video");
  player.addEventListener("loadeddata", () => media.classList.add("playing"));
  player.addEventListener("error", () => {
    // A browser without H.264: the animated picture shows the same four views.
    const picture = document.createElement("img");
    picture.className = "play";
    picture.alt = "";
    picture.src = player.dataset.thumb;
    player.replaceWith(picture);
    card.querySelector('[data-show="video"]').disabled = true;
    update(card);
  });
  const buttons = [...card.querySelectorAll("[data-show]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      press(buttons, button);
      update(card);
    });
    if (button.dataset.show === shownEverywhere) press(buttons, button);
  }
  watcher.observe(card);
}

function sift() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (entry) => {
    const done = entry.dataset.state === "done";
    const wanted = { all: true, done, failed: !done, best: entry.dataset.best === "1" }[filter];
    return wanted && words.every((word) => entry.dataset.text.includes(word));
  };
  chosen = order.filter(fits);
  const failed = problems.filter(fits);
  document.querySelector(".cards").replaceChildren();
  grow();
  const section = document.querySelector(".problems");
  if (section) {
    section.hidden = failed.length === 0;
    section.querySelector(".list").replaceChildren(...failed.slice(0, 5 * STEP));
    const left = failed.length - 5 * STEP;
    section.querySelector(".left").textContent = left > 0 ? `and ${left} more: search, or see results.csv` : "";
  }
  document.getElementById("empty").hidden = chosen.length + failed.length > 0;
}

// Puts the next cards on the page; the end of the list coming near does it again.
function grow() {
  const list = document.querySelector(".cards");
  const next = chosen.slice(list.children.length, list.children.length + STEP);
  list.append(...next);
  for (const card of next) {
    if (!prepared.has(card)) prepare(card);
    prepared.add(card);
  }
  more.hidden = list.children.length >= chosen.length;
  more.textContent = `${list.children.length} of ${chosen.length}`;
}

function showPause() {
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Play" : "Pause";
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    entry.target.classList.toggle("seen", entry.isIntersecting);
    update(entry.target);
  }
}, { rootMargin: "120px" });

const prepared = new Set();
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) grow();
}, { rootMargin: "600px" }).observe(more);
document.getElementById("sort").addEventListener("change", (event) => {
  const [key, way] = event.target.value.split("-");
  const sign = way === "down" ? -1 : 1;
  // Sorting is stable, so the manifest's order (that of `cards`) decides between equals.
  order = key ? [...cards].sort((a, b) => sign * (a.dataset[key] - b.dataset[key])) : cards;
  sift();
});
search.addEventListener("input", sift);
for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => {
    filter = button.dataset.filter;
    press(document.querySelectorAll("[data-filter]"), button);
    sift();
  });
}
for (const button of document.querySelectorAll("[data-all]")) {
  button.addEventListener("click", () => {
    press(document.querySelectorAll("[data-all]"), button);
    shownEverywhere = button.dataset.all;
    for (const card of prepared) card.querySelector(`[data-show="${shownEverywhere}"]`).click();
  });
}
pause.addEventListener("click", () => {
  paused = !paused;
  showPause();
  for (const card of prepared) update(card);
});
showPause();
sift();
