// The mesh with its textures, in the light baked for frame 0: linear light, encoded as sRGB at the end.
const MESH_VERTEX = `${TRAJECTORY}
layout(location = 0) in uint place;
layout(location = 1) in vec2 uv;
layout(location = 2) in vec4 color;
layout(location = 3) in vec2 light;
uniform mat4 clip;
uniform float brightest;
out vec2 at;
out vec4 base;
out vec2 lights;
void main() {
  gl_Position = clip * vec4(placeOf(place), 1.0);
  at = uv;
  base = vec4(mix(color.rgb / 12.92, pow((color.rgb + 0.055) / 1.055, vec3(2.4)), step(0.04045, color.rgb)), color.a);
  lights = brightest * light;
}`;

const MESH_FRAGMENT = `
uniform sampler2D picture;
uniform float cutoff;
uniform float mirrored;
in vec2 at;
in vec4 base;
in vec2 lights;
out vec4 shown;
void main() {
  vec4 surface = base * texture(picture, at);
  if (surface.a < cutoff) discard;
  vec3 linear = ((1.0 - mirrored) * surface.rgb + mirrored) * (gl_FrontFacing ? lights.x : lights.y);
  linear = clamp(linear, 0.0, 1.0);
  shown = vec4(mix(12.92 * linear, 1.055 * pow(linear, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, linear)), 1.0);
}`;

class MovingMesh {
  constructor(gl, scene, arrays, pictures) {
    this.gl = gl;
    this.scene = scene;
    this.ink = makeProgram(gl, MESH_VERTEX, MESH_FRAGMENT);
    this.places = rowTexture(gl, widened(arrays.meshPlaces, 3), scene.frames, gl.RGBA16I, gl.RGBA_INTEGER, gl.SHORT);
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    vertexBuffer(gl, arrays.meshPlaceOfVertex, 0, 1, true);
    vertexBuffer(gl, arrays.meshUv, 1, 2);
    vertexBuffer(gl, arrays.meshColors, 2, 4);
    vertexBuffer(gl, arrays.meshLights, 3, 2);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, arrays.meshFaces, gl.STATIC_DRAW);
    this.pictures = pictures.map((picture) => this.upload(picture));
    this.smooth = null;
  }

  upload(picture) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    if (picture === null) {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
    } else {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.SRGB8_ALPHA8, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    }
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    return { target: gl.TEXTURE_2D, texture };
  }

  // The canvas itself is not smoothed, because that would cost splats dear: the mesh has a framebuffer of its own.
  smoothTarget(width, height) {
    const { gl } = this;
    if (this.smooth && this.smooth.width === width && this.smooth.height === height) return this.smooth.frame;
    if (this.smooth) this.smooth.parts.forEach((part) => gl.deleteRenderbuffer(part));
    const frame = this.smooth ? this.smooth.frame : gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    const samples = Math.min(4, gl.getParameter(gl.MAX_SAMPLES));
    const kinds = [[gl.COLOR_ATTACHMENT0, gl.RGBA8], [gl.DEPTH_ATTACHMENT, gl.DEPTH_COMPONENT24]];
    const parts = kinds.map(([attachment, kind]) => {
      const part = gl.createRenderbuffer();
      gl.bindRenderbuffer(gl.RENDERBUFFER, part);
      gl.renderbufferStorageMultisample(gl.RENDERBUFFER, samples, kind, width, height);
      gl.framebufferRenderbuffer(gl.FRAMEBUFFER, attachment, gl.RENDERBUFFER, part);
      return part;
    });
    this.smooth = { width, height, frame, parts };
    return frame;
  }

  draw(camera, moment) {
    const { gl, ink } = this;
    gl.useProgram(ink.program);
    gl.bindVertexArray(this.array);
    bindTexture(gl, 0, ink.at.places, this.places);
    setTrajectory(gl, ink.at, this.scene, moment);
    gl.uniformMatrix4fv(ink.at.clip, false, camera.clip);
    gl.uniform1f(ink.at.brightest, this.scene.mesh.brightest);
    gl.uniform1f(ink.at.mirrored, this.scene.mesh.mirrored);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LESS);
    for (const part of this.scene.mesh.parts) {
      bindTexture(gl, 1, ink.at.picture, this.pictures[part.picture]);
      gl.uniform1f(ink.at.cutoff, part.cutoff);
      gl.drawElements(gl.TRIANGLES, part.count, gl.UNSIGNED_INT, 4 * part.start);
    }
    gl.disable(gl.DEPTH_TEST);
  }
}
