// The page: time, camera, buttons, keys, the input views in step, and the address that remembers frame and camera.
const element = (id) => document.getElementById(id);
const canvas = element("canvas");
const GROUNDS = [["Grey", [0.5, 0.5, 0.5]], ["Dark", [0.075, 0.08, 0.085]], ["Light", [1, 1, 1]]];
const LOOPS = ["Loop", "Back and forth", "Once"];
const SPEEDS = [1, 0.5, 0.25, 2];
const TURN_DEGREES_PER_SECOND = 36;
const SLOW_SECONDS = 0.07;

async function main() {
  const scene = JSON.parse(element("scene").textContent);
  if (!("DecompressionStream" in window)) return fail("This browser is too old to unpack the page: please use a newer one.");
  const arrays = await unpackArrays(scene.table, element("body").textContent);
  const [pictures, film] = await Promise.all([Promise.all(scene.mesh ? scene.mesh.pictures.map(decode) : []), decode("film")]);
  function decode(name) {
    if (name === null) return null;
    const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
    return createImageBitmap(new Blob([arrays[name]], { type: "image/webp" }), options);
  }

  const orbit = new Orbit(scene);
  const state = {
    time: 0, playing: !matchMedia("(prefers-reduced-motion: reduce)").matches, way: 1, loop: 0, speed: 0, ground: 0,
    shown: scene.mesh ? "mesh" : "splats", trails: false, turning: false, detail: 1, slow: 0, stale: true,
  };
  const last = scene.frames - 1;
  // A clip that ends where it began has no pause at the seam; any other holds its last frame as long as the rest.
  const length = scene.closed ? last : scene.frames;
  let drawers = null;
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, depth: true, powerPreference: "high-performance" });
  if (gl) build();
  else fail("This browser cannot draw in 3D here (WebGL 2 is off). The views beside still play.");

  function build() {
    drawers = {
      splats: new Splats(gl, scene, arrays),
      mesh: scene.mesh ? new MovingMesh(gl, scene, arrays, pictures) : null,
      trails: new Trails(gl, scene, arrays),
    };
    state.stale = true;
  }
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    drawers = null;
  });
  canvas.addEventListener("webglcontextrestored", build);

  // ---- one frame
  function draw() {
    const ratio = Math.min(devicePixelRatio, 2) * state.detail;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const before = Math.min(Math.floor(state.time), last);
    const moment = { before, after: Math.min(before + 1, last), share: Math.min(state.time, last) - before };
    const camera = orbit.matrices(width, height);
    gl.viewport(0, 0, width, height);
    gl.clearColor(...GROUNDS[state.ground][1], 1);
    if (state.shown === "mesh") {
      gl.bindFramebuffer(gl.FRAMEBUFFER, drawers.mesh.smoothTarget(width, height));
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      drawers.mesh.draw(camera, moment);
    } else {
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      drawers.splats.draw(camera, moment);
      if (state.trails && drawers.mesh) {
        gl.colorMask(false, false, false, false);
        drawers.mesh.draw(camera, moment);
        gl.colorMask(true, true, true, true);
      }
    }
    if (state.trails) drawers.trails.draw(camera, Math.min(state.time, last), 2.5 * ratio, drawers.mesh !== null);
    if (state.shown === "mesh") {
      gl.bindFramebuffer(gl.READ_FRAMEBUFFER, drawers.mesh.smoothTarget(width, height));
      gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
      gl.blitFramebuffer(0, 0, width, height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST);
    }
    canvas.dataset.drawn = Number(canvas.dataset.drawn || 0) + 1;
  }

  // ---- time
  function advance(seconds) {
    const step = seconds * scene.fps * SPEEDS[state.speed] * state.way;
    state.time += step;
    if (state.loop === 0) {
      state.time = ((state.time % length) + length) % length;
    } else if (state.time > last || state.time < 0) {
      if (state.loop === 2) pause();
      else state.way = -state.way;
      state.time = Math.min(Math.max(state.time, 0), last);
    }
  }

  function play() {
    if (state.loop === 2 && state.time >= last) state.time = 0;
    state.playing = true;
    showControls();
  }

  function pause() {
    state.playing = false;
    state.way = 1;
    showControls();
    remember();
  }

  function goTo(time) {
    if (state.playing) pause();
    state.time = Math.min(Math.max(time, 0), last);
    changed();
  }

  const step = (way) => goTo(way > 0 ? Math.floor(state.time + 1.001) : Math.ceil(state.time - 1.001));

  // ---- what the page shows of it
  const views = scene.cameras.map((camera, number) => {
    const button = document.createElement("button");
    const picture = Object.assign(document.createElement("canvas"), { width: scene.film.size, height: scene.film.size });
    const label = document.createElement("span");
    label.textContent = `${number + 1} · ${camera.name}`;
    button.type = "button";
    button.setAttribute("aria-label", `Look from input view ${number + 1}, ${camera.name}`);
    button.append(picture, label);
    button.addEventListener("click", () => lookFrom(number));
    element("views").append(button);
    return picture.getContext("2d");
  });

  let filmed = -1;
  function showFilm() {
    const { size, frames, columns, order } = scene.film;
    const frame = order[Math.min(Math.floor(state.time + 1e-3), last)];
    if (frame === filmed) return;
    filmed = frame;
    views.forEach((context, view) => {
      const cell = view * frames + frame;
      const [left, top] = [(cell % columns) * size, Math.floor(cell / columns) * size];
      context.drawImage(film, left, top, size, size, 0, 0, size, size);
    });
  }

  function showClock() {
    const time = Math.min(state.time, last);
    const text = `${(time / scene.fps).toFixed(2)} s · ${Math.floor(time + 1e-3)}/${last}`;
    if (element("clock").value === text) return;
    element("clock").value = text;
    element("time").value = time;
    element("time").setAttribute("aria-valuetext", `frame ${Math.floor(time + 1e-3)} of ${last}`);
  }

  function showControls() {
    element("play").classList.toggle("playing", state.playing);
    element("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
    element("loop").textContent = LOOPS[state.loop];
    element("loop").setAttribute("aria-label", `At the end: ${LOOPS[state.loop]}`);
    element("speed").textContent = `${SPEEDS[state.speed]}×`;
    element("speed").setAttribute("aria-label", `Speed ${SPEEDS[state.speed]}`);
    element("ground").textContent = GROUNDS[state.ground][0];
    element("ground").setAttribute("aria-label", `Background: ${GROUNDS[state.ground][0]}`);
    for (const kind of ["mesh", "splats"]) element(kind).setAttribute("aria-pressed", String(state.shown === kind));
    element("trails").setAttribute("aria-pressed", String(state.trails));
    element("turn").setAttribute("aria-pressed", String(state.turning));
    element("mesh").disabled = !scene.mesh;
  }

  function showFacts(rate) {
    const parts = [`${scene.splats.toLocaleString("en")} splats`];
    if (scene.mesh) parts.push(`${scene.mesh.triangles.toLocaleString("en")} triangles`);
    parts.push(`${scene.frames} frames`);
    // the first time nothing is drawn yet, and the canvas has the browser's size, not ours
    if (canvas.dataset.rate) parts.push(`${canvas.width} × ${canvas.height} px`);
    if (rate) parts.push(`${rate.toFixed(0)} pictures a second`);
    element("facts").textContent = parts.join(" · ");
    canvas.dataset.rate = rate.toFixed(1);
  }

  function changed() {
    state.stale = true;
    remember();
  }

  function change(what) {
    Object.assign(state, what);
    showControls();
    changed();
  }

  function lookFrom(number) {
    if (!scene.cameras[number]) return;
    orbit.look(scene.cameras[number]);
    change({ turning: false });
  }

  // ---- the address: #frame=5&az=30&el=15&d=3, and x, y, z where the view was moved
  let writing = 0;
  function remember() {
    clearTimeout(writing);
    writing = setTimeout(() => {
      const shown = { az: orbit.azimuth, el: orbit.elevation, d: orbit.distance };
      if (!state.playing) shown.frame = state.time;
      if (orbit.target.some((place) => place !== 0)) ["x", "y", "z"].forEach((name, axis) => (shown[name] = orbit.target[axis]));
      const words = Object.entries(shown).map(([name, value]) => `${name}=${Number(value.toFixed(3))}`);
      if (scene.mesh && state.shown === "splats") words.push("show=splats");
      history.replaceState(null, "", `#${words.join("&")}`);
    }, 300);
  }

  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    const read = (name, low, high, otherwise) => {
      const value = words.has(name) ? Number(words.get(name)) : NaN;
      return Number.isFinite(value) ? Math.min(Math.max(value, low), high) : otherwise;
    };
    orbit.azimuth = read("az", -360, 360, orbit.azimuth);
    orbit.elevation = read("el", -89, 89, orbit.elevation);
    orbit.distance = read("d", 0.5, 12, orbit.distance);
    orbit.target = ["x", "y", "z"].map((name, axis) => read(name, -2, 2, orbit.target[axis]));
    if (scene.mesh && words.has("show")) state.shown = words.get("show") === "splats" ? "splats" : "mesh";
    if (words.has("frame")) Object.assign(state, { time: read("frame", 0, last, 0), playing: false });
    state.stale = true;
    showControls();
  }
  addEventListener("hashchange", recall);

  // ---- buttons, slider, keys
  const next = (list, index) => (index + 1) % list.length;
  const toggleShown = () => scene.mesh && change({ shown: state.shown === "mesh" ? "splats" : "mesh" });
  const actions = {
    play: () => (state.playing ? pause() : play()),
    loop: () => change({ loop: next(LOOPS, state.loop), way: 1 }),
    speed: () => change({ speed: next(SPEEDS, state.speed) }),
    mesh: () => scene.mesh && change({ shown: "mesh" }),
    splats: () => change({ shown: "splats" }),
    trails: () => change({ trails: !state.trails }),
    turn: () => change({ turning: !state.turning }),
    ground: () => change({ ground: next(GROUNDS, state.ground) }),
    reset: () => {
      orbit.look(scene.start);
      change({ turning: false });
    },
  };
  for (const [name, act] of Object.entries(actions)) element(name).addEventListener("click", act);
  element("time").max = last;
  element("time").addEventListener("input", () => goTo(Number(element("time").value)));
  if (gl) followPointers(canvas, orbit, () => change({ turning: false }));

  const moved = (act) => () => {
    act();
    changed();
  };
  const side = () => Math.min(canvas.clientWidth, canvas.clientHeight);
  const keys = {
    " ": actions.play, l: actions.loop, m: toggleShown, p: actions.trails, t: actions.turn, b: actions.ground, 0: actions.reset,
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => goTo(0), End: () => goTo(last),
    "shift ArrowLeft": moved(() => orbit.turn(-5, 0)), "shift ArrowRight": moved(() => orbit.turn(5, 0)),
    "shift ArrowUp": moved(() => orbit.turn(0, 5)), "shift ArrowDown": moved(() => orbit.turn(0, -5)),
    "+": moved(() => orbit.zoom(1 / 1.1)), "=": moved(() => orbit.zoom(1 / 1.1)), "-": moved(() => orbit.zoom(1.1)),
    w: moved(() => orbit.pan(0, 20, side())), s: moved(() => orbit.pan(0, -20, side())),
    a: moved(() => orbit.pan(20, 0, side())), d: moved(() => orbit.pan(-20, 0, side())),
  };
  [1, 2, 3, 4].forEach((number) => (keys[number] = () => lookFrom(number - 1)));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // Buttons have their own use for space, the slider for arrows.
    if (name === " " && event.target.closest("button, summary")) return;
    if (/^(Arrow|Home|End)/.test(name) && !event.shiftKey && event.target === element("time")) return;
    const act = keys[(event.shiftKey && /^Arrow/.test(name) ? "shift " : "") + name];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // ---- the clock of the page
  let before = performance.now();
  let drawn = 0, counted = before;
  function tick(now) {
    const seconds = Math.min((now - before) / 1000, 0.25);
    before = now;
    if (state.playing) advance(seconds);
    if (state.turning) orbit.turn(TURN_DEGREES_PER_SECOND * seconds, 0);
    const moving = state.playing || state.turning;
    if (drawers && (moving || state.stale)) {
      draw();
      drawn += 1;
      keepUp(moving && seconds > SLOW_SECONDS);
      state.stale = false;
    }
    showFilm();
    showClock();
    if (now - counted > 1000) {
      showFacts(moving ? (1000 * drawn) / (now - counted) : 0);
      [drawn, counted] = [0, now];
    }
    requestAnimationFrame(tick);
  }

  // A machine that cannot keep up draws fewer pixels.
  function keepUp(slow) {
    state.slow = slow ? state.slow + 1 : 0;
    if (state.slow < 20 || state.detail < 0.5) return;
    state.detail *= 0.75;
    state.slow = 0;
  }
  new ResizeObserver(() => (state.stale = true)).observe(canvas);
  recall();
  showControls();
  showFacts(0);
  requestAnimationFrame(tick);
}

function fail(text) {
  element("problem").textContent = text;
  element("problem").hidden = false;
}

main().catch((error) => fail(`The page could not be shown: ${error.message}`));
