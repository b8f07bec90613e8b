// Arrays out of the page: base64, inflate, planes of bytes, differences from frame to frame (`pack.py` is the other half).
const TYPES = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, float32: Float32Array,
};

async function unpackArrays(table, text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const body = new Uint8Array(await new Response(stream).arrayBuffer());
  const arrays = {};
  for (const [name, entry] of Object.entries(table)) {
    const count = entry.shape.reduce((product, side) => product * side, 1);
    arrays[name] = readArray(body, entry, count);
    if (entry.moving) addFrames(arrays[name], count / entry.shape[0]);
  }
  return arrays;
}

function readArray(body, entry, count) {
  const Type = TYPES[entry.type];
  if (Type.BYTES_PER_ELEMENT !== 2) return new Type(body.buffer, entry.at, count);
  const array = new Type(count);
  for (let index = 0; index < count; index++) {
    array[index] = body[entry.at + index] | (body[entry.at + count + index] << 8);
  }
  return array;
}

function addFrames(array, stride) {
  for (let index = stride; index < array.length; index++) array[index] += array[index - stride];
}

// Textures read four numbers a texel at full speed, files hold three.
function widened(array, width) {
  const count = array.length / width;
  const wide = new array.constructor(4 * count);
  for (let index = 0; index < count; index++) {
    for (let channel = 0; channel < width; channel++) wide[4 * index + channel] = array[width * index + channel];
  }
  return wide;
}
