// A camera on an orbit: z is up, azimuth 0 lies on +x, angles in degrees, as in `core.cameras`.
class Orbit {
  constructor(scene) {
    this.scene = scene;
    this.look(scene.start);
  }

  look({ azimuth, elevation, distance }) {
    Object.assign(this, { azimuth, elevation, distance, target: [0, 0, 0] });
  }

  turn(right, up) {
    this.azimuth = (((this.azimuth + right) % 360) + 360) % 360;
    this.elevation = Math.min(89, Math.max(-89, this.elevation + up));
  }

  zoom(factor) {
    this.distance = Math.min(12, Math.max(0.5, this.distance * factor));
  }

  // Pixels the picture shall follow the hand.
  pan(right, down, height) {
    const { right: x, up: y } = this.axes();
    const step = (2 * this.distance * Math.tan((this.scene.fov * Math.PI) / 360)) / height;
    this.target = this.target.map((place, axis) =>
      Math.min(2, Math.max(-2, place - step * right * x[axis] + step * down * y[axis])));
  }

  axes() {
    const [a, e] = [this.azimuth, this.elevation].map((angle) => (angle * Math.PI) / 180);
    const back = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
    const right = [-Math.sin(a), Math.cos(a), 0];
    const up = [back[1] * right[2] - back[2] * right[1], back[2] * right[0] - back[0] * right[2], back[0] * right[1] - back[1] * right[0]];
    return { right, up, back };
  }

  // Matrices by columns; the field of view belongs to the shorter side, so the object fits on a phone too.
  matrices(width, height) {
    const { right, up, back } = this.axes();
    const eye = this.target.map((place, axis) => place + this.distance * back[axis]);
    const rows = [right, up, back];
    const view = new Float32Array(16);
    rows.forEach((row, index) => {
      for (let axis = 0; axis < 3; axis++) view[4 * axis + index] = row[axis];
      view[12 + index] = -row.reduce((sum, value, axis) => sum + value * eye[axis], 0);
    });
    view[15] = 1;
    const focal = (0.5 * Math.min(width, height)) / Math.tan((this.scene.fov * Math.PI) / 360);
    const [near, far] = [0.05, 30];
    const lens = [(2 * focal) / width, (2 * focal) / height, (far + near) / (near - far), (2 * far * near) / (near - far)];
    const clip = new Float32Array(16);
    for (let column = 0; column < 4; column++) {
      const [x, y, z, w] = view.subarray(4 * column, 4 * column + 4);
      clip.set([lens[0] * x, lens[1] * y, lens[2] * z + lens[3] * w, -z], 4 * column);
    }
    return { view, clip, focal, width, height };
  }
}

// Mouse, pen and fingers on the canvas: one turns, two or another button move and zoom.
function followPointers(canvas, orbit, changed) {
  const held = new Map();
  const middle = () => {
    const points = [...held.values()];
    const sum = points.reduce(([x, y], point) => [x + point.x, y + point.y], [0, 0]);
    return { x: sum[0] / points.length, y: sum[1] / points.length };
  };
  const spread = () => {
    const [a, b] = [...held.values()];
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const [before, wide] = [middle(), spread()];
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const after = middle();
    const [right, down] = [after.x - before.x, after.y - before.y];
    if (held.size > 1 || event.buttons & 6 || event.shiftKey || event.ctrlKey) {
      orbit.pan(right, down, Math.min(canvas.clientWidth, canvas.clientHeight));
      if (held.size > 1 && spread() > 0) orbit.zoom(wide / spread());
    } else {
      orbit.turn(-0.45 * right, 0.45 * down);
    }
    changed();
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => held.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    orbit.zoom(Math.exp(event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015)));
    changed();
  }, { passive: false });
}
