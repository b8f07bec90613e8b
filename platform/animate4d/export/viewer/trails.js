// Where points have been: their paths up to now, faint where long ago, as ribbons some pixels wide.
const TRAIL_VERTEX = `
layout(location = 0) in vec4 from;
layout(location = 1) in vec4 to;
layout(location = 2) in vec3 tint;
uniform mat4 clip;
uniform vec2 size;
uniform float now;
uniform float width;
out vec4 color;
void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  if (from.w >= now) return;
  // The piece under way is cut where the point is now.
  vec4 head = vec4(mix(from.xyz, to.xyz, clamp((now - from.w) / (to.w - from.w), 0.0, 1.0)), min(to.w, now));
  vec4 a = clip * vec4(from.xyz, 1.0), b = clip * vec4(head.xyz, 1.0);
  if (min(a.w, b.w) < 0.01) return;
  vec2 along = (b.xy / b.w - a.xy / a.w) * size;
  along = length(along) < 1e-3 ? vec2(1.0, 0.0) : normalize(along);
  bool front = (gl_VertexID & 1) == 1;
  float side = float((gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  vec4 end = front ? b : a;
  float age = now - (front ? head.w : from.w);
  float fade = exp(-0.22 * age);
  vec2 shift = vec2(-along.y, along.x) * side * width * mix(0.5, 1.0, fade);
  gl_Position = vec4(end.xy + shift * end.w / size, end.z - 2e-3 * end.w, end.w);
  color = vec4(tint, 0.15 + 0.85 * fade);
}`;

const TRAIL_FRAGMENT = `
in vec4 color;
out vec4 shown;
void main() { shown = vec4(color.rgb * color.a, color.a); }`;

class Trails {
  constructor(gl, scene, arrays) {
    this.gl = gl;
    this.ink = makeProgram(gl, TRAIL_VERTEX, TRAIL_FRAGMENT);
    const rows = arrays.trailRows, places = arrays.splatPlaces, stride = places.length / scene.frames;
    const at = (row, frame) => {
      const start = frame * stride + 3 * row;
      return [0, 1, 2].map((axis) => scene.origin[axis] + scene.unit * places[start + axis]);
    };
    const from = [], to = [], tints = [];
    for (const row of rows) {
      const [x, y, z] = at(row, 0);
      const tint = hue(Math.atan2(y, x) / (2 * Math.PI) + 0.35 * z);
      for (let frame = 0; frame + 1 < scene.frames; frame++) {
        const [start, end] = [[...at(row, frame), frame], [...at(row, frame + 1), frame + 1]];
        for (let corner = 0; corner < 4; corner++) {
          from.push(...start);
          to.push(...end);
          tints.push(...tint);
        }
      }
    }
    this.count = tints.length / 12;
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    vertexBuffer(gl, new Float32Array(from), 0, 4);
    vertexBuffer(gl, new Float32Array(to), 1, 4);
    vertexBuffer(gl, new Float32Array(tints), 2, 3);
    quadIndices(gl, this.count);
  }

  // With depths of the mesh in place, what is behind it stays hidden.
  draw(camera, now, width, hidden) {
    const { gl, ink } = this;
    gl.useProgram(ink.program);
    gl.bindVertexArray(this.array);
    gl.uniformMatrix4fv(ink.at.clip, false, camera.clip);
    gl.uniform2f(ink.at.size, camera.width, camera.height);
    gl.uniform1f(ink.at.now, now);
    gl.uniform1f(ink.at.width, width);
    if (hidden) {
      gl.enable(gl.DEPTH_TEST);
      gl.depthFunc(gl.LEQUAL);
      gl.depthMask(false);
    }
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawElements(gl.TRIANGLES, 6 * this.count, gl.UNSIGNED_INT, 0);
    gl.disable(gl.BLEND);
    gl.disable(gl.DEPTH_TEST);
    gl.depthMask(true);
  }
}

function hue(turn) {
  return [0, 1, 2].map((channel) => {
    const wave = Math.abs(((((turn + channel / 3) % 1) + 1) % 1) * 6 - 3) - 1;
    return 0.15 + 0.85 * Math.min(1, Math.max(0, wave));
  });
}
