// What splats, mesh and trails share: programs, and trajectories as one texture with a layer per frame.
const ROW = 1024;

const TRAJECTORY = `
uniform highp isampler2DArray places;
uniform ivec2 frames;
uniform float share;
uniform vec3 origin;
uniform float unit;

ivec2 texel(uint row) { return ivec2(int(row) % ${ROW}, int(row) / ${ROW}); }

vec3 placeOf(uint row) {
  vec3 before = vec3(texelFetch(places, ivec3(texel(row), frames.x), 0).xyz);
  vec3 after = vec3(texelFetch(places, ivec3(texel(row), frames.y), 0).xyz);
  return origin + unit * mix(before, after, share);
}
`;

function makeProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  const head = "#version 300 es\nprecision highp float;\nprecision highp int;\n";
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, head + text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error([gl.getProgramInfoLog(program), ...logs].join("\n"));
  }
  const places = {};
  for (let index = 0; index < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); index++) {
    const { name } = gl.getActiveUniform(program, index);
    places[name] = gl.getUniformLocation(program, name);
  }
  return { program, at: places };
}

// Values [frames, rows, 4] as a texture with a layer per frame; what does not move has one.
function rowTexture(gl, values, frames, internal, format, type) {
  const rows = values.length / 4 / frames;
  const height = Math.ceil(rows / ROW);
  const layer = new values.constructor(4 * ROW * height);
  const target = gl.TEXTURE_2D_ARRAY;
  const texture = gl.createTexture();
  gl.bindTexture(target, texture);
  gl.texStorage3D(target, 1, internal, ROW, height, frames);
  for (let frame = 0; frame < frames; frame++) {
    layer.set(values.subarray(4 * rows * frame, 4 * rows * (frame + 1)));
    gl.texSubImage3D(target, 0, 0, 0, frame, ROW, height, 1, format, type, layer);
  }
  gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  return { target, texture };
}

function bindTexture(gl, slot, location, { target, texture }) {
  gl.activeTexture(gl.TEXTURE0 + slot);
  gl.bindTexture(target, texture);
  gl.uniform1i(location, slot);
}

function setTrajectory(gl, at, scene, moment) {
  gl.uniform2i(at.frames, moment.before, moment.after);
  gl.uniform1f(at.share, moment.share);
  gl.uniform3fv(at.origin, scene.origin);
  gl.uniform1f(at.unit, scene.unit);
}

function vertexBuffer(gl, values, location, width, integer = false) {
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
  const kinds = new Map([[Float32Array, gl.FLOAT], [Uint32Array, gl.UNSIGNED_INT], [Uint16Array, gl.UNSIGNED_SHORT], [Uint8Array, gl.UNSIGNED_BYTE]]);
  const kind = kinds.get(values.constructor);
  gl.enableVertexAttribArray(location);
  if (integer) gl.vertexAttribIPointer(location, width, kind, 0, 0);
  else gl.vertexAttribPointer(location, width, kind, kind !== gl.FLOAT, 0, 0);
}

// Two triangles for each four vertices. Instances would say the same, but software draws them one by one.
function quadIndices(gl, count) {
  const indices = new Uint32Array(6 * count);
  for (let quad = 0; quad < count; quad++) indices.set([0, 1, 2, 2, 1, 3].map((corner) => 4 * quad + corner), 6 * quad);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
}
