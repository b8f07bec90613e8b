// Splats: drawn back to front as ellipses, each covering what is brighter than 1/255, as in the renderer of the fit.
const SPLAT_VERTEX = `${TRAJECTORY}
uniform highp usampler2D order;
uniform highp isampler2DArray turns;
uniform highp sampler2DArray scales;
uniform highp sampler2DArray colors;
uniform mat4 view;
uniform float focal;
uniform vec2 size;
flat out vec4 color;
out vec2 offset;

// Sizes and colours have one layer where they do not change.
vec4 paintOf(highp sampler2DArray paint, uint row) {
  ivec2 layers = min(frames, textureSize(paint, 0).z - 1);
  vec4 before = texelFetch(paint, ivec3(texel(row), layers.x), 0);
  return layers.x == layers.y ? before : mix(before, texelFetch(paint, ivec3(texel(row), layers.y), 0), share);
}

mat3 rotation(vec4 q) {
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  uint splat = texelFetch(order, texel(uint(gl_VertexID >> 2)), 0).x;
  vec3 place = (view * vec4(placeOf(splat), 1.0)).xyz;
  float depth = -place.z;
  if (depth < 0.01) return;
  color = paintOf(colors, splat);
  vec4 before = vec4(texelFetch(turns, ivec3(texel(splat), frames.x), 0));
  vec4 after = vec4(texelFetch(turns, ivec3(texel(splat), frames.y), 0));
  mat3 factor = mat3(view) * rotation(normalize(mix(before, after, share)));
  vec3 sigma = paintOf(scales, splat).xyz;
  factor = mat3(factor[0] * sigma.x, factor[1] * sigma.y, factor[2] * sigma.z);
  // The projection's derivative, at a place no farther out than 1.3 of the picture, where it still means something.
  vec2 slope = clamp(place.xy / depth, -0.65 * size / focal, 0.65 * size / focal);
  mat3x2 jacobian = mat3x2(focal / depth, 0.0, 0.0, focal / depth, focal * slope / depth);
  mat3x2 flat2 = jacobian * factor;
  mat2 covariance = flat2 * transpose(flat2);
  float a = covariance[0][0] + 0.3, b = covariance[0][1], c = covariance[1][1] + 0.3;
  float middle = 0.5 * (a + c), spread = sqrt(max(middle * middle - (a * c - b * b), 1e-9));
  vec2 axis = abs(b) < 1e-6 ? (a >= c ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(b, middle + spread - a));
  float reach = sqrt(2.0 * log(max(255.0 * color.a, 1.0)));
  vec2 corner = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  offset = reach * corner;
  vec2 pixels = offset.x * sqrt(middle + spread) * axis + offset.y * sqrt(max(middle - spread, 0.0)) * vec2(-axis.y, axis.x);
  gl_Position = vec4((focal * place.xy / depth + pixels) * 2.0 / size, 0.0, 1.0);
}`;

const SPLAT_FRAGMENT = `
flat in vec4 color;
in vec2 offset;
out vec4 shown;
void main() {
  float alpha = min(0.999, color.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  shown = vec4(color.rgb * alpha, alpha);
}`;

class Splats {
  constructor(gl, scene, arrays) {
    this.gl = gl;
    this.scene = scene;
    this.places = arrays.splatPlaces;
    this.count = scene.splats;
    this.rows = Math.ceil(this.count / ROW);
    this.order = new Uint32Array(ROW * this.rows);
    this.depths = new Float32Array(this.count);
    this.keys = new Uint16Array(this.count);
    this.starts = new Uint32Array(65536);
    this.ink = makeProgram(gl, SPLAT_VERTEX, SPLAT_FRAGMENT);
    const frames = scene.frames;
    this.textures = {
      places: rowTexture(gl, widened(this.places, 3), frames, gl.RGBA16I, gl.RGBA_INTEGER, gl.SHORT),
      turns: rowTexture(gl, arrays.splatTurns, frames, gl.RGBA8I, gl.RGBA_INTEGER, gl.BYTE),
      scales: rowTexture(gl, widened(arrays.splatScales, 3), scene.table.splatScales.shape[0], gl.RGBA16F, gl.RGBA, gl.HALF_FLOAT),
      colors: rowTexture(gl, arrays.splatColors, scene.table.splatColors.shape[0], gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE),
    };
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    quadIndices(gl, this.count);
    this.textures.order = { target: gl.TEXTURE_2D, texture: gl.createTexture() };
    gl.bindTexture(gl.TEXTURE_2D, this.textures.order.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R32UI, ROW, this.rows);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  // A counting sort of 16-bit depths, farthest first: a third of a millisecond for 10 000.
  sort(view, moment) {
    const { places, depths, keys, starts, count, order } = this;
    const [x, y, z] = [-view[2], -view[6], -view[10]];
    const before = 3 * count * moment.before, after = 3 * count * moment.after, share = moment.share;
    let low = Infinity, high = -Infinity;
    for (let row = 0; row < count; row++) {
      const a = before + 3 * row, b = after + 3 * row;
      const first = x * places[a] + y * places[a + 1] + z * places[a + 2];
      const second = x * places[b] + y * places[b + 1] + z * places[b + 2];
      const depth = first + share * (second - first);
      depths[row] = depth;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    const scale = 65535 / Math.max(high - low, 1e-9);
    starts.fill(0);
    for (let row = 0; row < count; row++) {
      keys[row] = (high - depths[row]) * scale;
      starts[keys[row]] += 1;
    }
    let sum = 0;
    for (let key = 0; key < 65536; key++) {
      const here = starts[key];
      starts[key] = sum;
      sum += here;
    }
    for (let row = 0; row < count; row++) order[starts[keys[row]]++] = row;
  }

  draw(camera, moment) {
    const { gl, ink } = this;
    this.sort(camera.view, moment);
    gl.useProgram(ink.program);
    gl.bindVertexArray(this.array);
    Object.entries(this.textures).forEach(([name, texture], slot) => bindTexture(gl, slot, ink.at[name], texture));
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, ROW, this.rows, gl.RED_INTEGER, gl.UNSIGNED_INT, this.order);
    setTrajectory(gl, ink.at, this.scene, moment);
    gl.uniformMatrix4fv(ink.at.view, false, camera.view);
    gl.uniform1f(ink.at.focal, camera.focal);
    gl.uniform2f(ink.at.size, camera.width, camera.height);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawElements(gl.TRIANGLES, 6 * this.count, gl.UNSIGNED_INT, 0);
    gl.disable(gl.BLEND);
  }
}
