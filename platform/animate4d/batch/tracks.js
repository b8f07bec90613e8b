"use strict";
const clips = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("frame");
const number = document.getElementById("number");
const play = document.getElementById("play");
const switches = { trails: document.getElementById("trails"), hidden: document.getElementById("hidden") };
const TRAIL = 8;
const last = Number(slider.max);
const views = [];
let playing = last > 0 && !matchMedia("(prefers-reduced-motion: reduce)").matches;
let shown = 0;

// A strip holds a view's frames one below the other; x and y come in eighths of a pixel, visibility as digits 0 to 9.
class View {
  constructor(canvas, clip, view) {
    Object.assign(this, { canvas, size: clip.size, frames: clip.frames, count: view.count, xy: view.xy, seen: view.seen });
    this.near = true; // until the observer, which some browsers call late, says otherwise
    this.output = canvas.parentElement.querySelector(".sight");
    // Hue and lightness span the points themselves: an object fills only a part of the picture.
    const place = (axis) => {
      const starts = Array.from({ length: this.count }, (_, point) => this.xy[2 * point + axis]);
      const low = Math.min(...starts);
      const span = Math.max(...starts) - low || 1;
      return starts.map((start) => (start - low) / span);
    };
    const [across, down] = [place(0), place(1)];
    this.colours = across.map((x, point) => `hsl(${Math.round(300 * x)} 95% ${Math.round(72 - 20 * down[point])}%)`);
    this.strip = new Image();
    this.strip.addEventListener("load", () => this.draw());
    this.strip.src = view.strip;
  }

  at(frame, point, scale) {
    const place = 2 * (frame * this.count + point);
    return [this.xy[place] * scale, this.xy[place + 1] * scale];
  }

  visible(frame, point) {
    return this.seen.charCodeAt(frame * this.count + point) > 48;
  }

  draw() {
    if (!this.near || !this.strip.complete || !this.strip.naturalWidth) return;
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const frame = Math.min(shown, this.frames - 1);
    const pen = this.canvas.getContext("2d");
    const scale = side / this.size / 8;
    const dot = Math.max(2, side / 95);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.strip, 0, frame * this.size, this.size, this.size, 0, 0, side, side);
    if (on("trails")) this.drawTrails(pen, frame, scale, dot);
    let sight = 0;
    for (let point = 0; point < this.count; point += 1) {
      const visible = this.visible(frame, point);
      if (visible) sight += 1;
      if (!visible && !on("hidden")) continue;
      const [x, y] = this.at(frame, point, scale);
      pen.beginPath();
      pen.arc(x, y, dot, 0, 2 * Math.PI);
      if (visible) {
        pen.fillStyle = this.colours[point];
        pen.fill();
        pen.lineWidth = dot / 4;
        pen.strokeStyle = "rgb(0 0 0 / 65%)";
      } else {
        pen.lineWidth = dot / 2.2;
        pen.strokeStyle = this.colours[point];
      }
      pen.stroke();
    }
    this.output.textContent = `${sight} of ${this.count} in sight`;
  }

  drawTrails(pen, frame, scale, dot) {
    pen.lineWidth = dot / 1.6;
    for (let step = Math.max(1, frame - TRAIL); step <= frame; step += 1) {
      pen.globalAlpha = 0.75 * (1 - (frame - step) / (TRAIL + 1));
      for (let point = 0; point < this.count; point += 1) {
        if (!this.visible(step, point) || !this.visible(step - 1, point)) continue;
        pen.strokeStyle = this.colours[point];
        pen.beginPath();
        pen.moveTo(...this.at(step - 1, point, scale));
        pen.lineTo(...this.at(step, point, scale));
        pen.stroke();
      }
    }
    pen.globalAlpha = 1;
  }
}

function on(name) {
  return switches[name].getAttribute("aria-pressed") === "true";
}

function show(frame) {
  shown = (frame + last + 1) % (last + 1);
  slider.value = String(shown);
  number.textContent = `${shown + 1} / ${last + 1}`;
  for (const view of views) view.draw();
}

function setPlaying(wanted) {
  playing = wanted;
  play.setAttribute("aria-pressed", String(playing));
  play.textContent = playing ? "Pause" : "Play";
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const view = views.find((other) => other.canvas === entry.target);
    view.near = entry.isIntersecting;
    view.draw();
  }
}, { rootMargin: "150px" });

document.querySelectorAll(".clip").forEach((article, clip) => {
  article.querySelectorAll("canvas").forEach((canvas, view) => {
    views.push(new View(canvas, clips[clip], clips[clip].views[view]));
    watcher.observe(canvas);
  });
});

slider.addEventListener("input", () => {
  setPlaying(false);
  show(Number(slider.value));
});
play.addEventListener("click", () => setPlaying(!playing));
for (const button of Object.values(switches)) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    show(shown);
  });
}
addEventListener("keydown", (event) => {
  if (event.target.closest("button, input")) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) {
    setPlaying(false);
    show(shown + step);
  } else if (event.key === " ") {
    event.preventDefault();
    setPlaying(!playing);
  }
});
addEventListener("resize", () => show(shown));

const pause = 1000 / Number(document.querySelector("main").dataset.fps || 8);
setPlaying(playing);
show(0);
setInterval(() => {
  if (playing && !document.hidden) show(shown + 1);
}, pause);
