"use strict";
const cards = [...document.querySelectorAll(".card")];
const problems = [...document.querySelectorAll(".problem")];
const search = document.getElementById("search");
const pause = document.getElementById("pause");
let filter = "all";
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;

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
  }
}

function sift() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const entry of [...cards, ...problems]) {
    const done = entry.dataset.state === "done";
    const fits = { all: true, done, failed: !done, best: entry.dataset.best === "1" }[filter];
    entry.hidden = !(fits && words.every((word) => entry.dataset.text.includes(word)));
    if (!entry.hidden) found += 1;
  }
  const section = document.querySelector(".problems");
  if (section) section.hidden = problems.every((entry) => entry.hidden);
  document.getElementById("empty").hidden = found > 0;
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

for (const card of cards) {
  prepare(card);
  watcher.observe(card);
}
document.getElementById("sort").addEventListener("change", (event) => {
  const [key, way] = event.target.value.split("-");
  const sign = way === "down" ? -1 : 1;
  // Sorting is stable, so the manifest's order (that of `cards`) decides between equals.
  const order = key ? [...cards].sort((a, b) => sign * (a.dataset[key] - b.dataset[key])) : cards;
  document.querySelector(".cards").append(...order);
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
    for (const card of cards) card.querySelector(`[data-show="${button.dataset.all}"]`).click();
  });
}
pause.addEventListener("click", () => {
  paused = !paused;
  showPause();
  for (const card of cards) update(card);
});
showPause();
