// A recommender from a file of recsys_lib that holds items only: fold-in, ten best films, reasons.
// No modules: a page that is opened from disk may not import them.
const PLAY = { files: {} };

// The stored table of a file (safetensors: length of the header, JSON, arrays), as float32.
PLAY.read = (base64) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const { settings } = JSON.parse(header.__metadata__.recsys_lib);
  const [name, kind, stored] = settings.tensors[0];
  const [items, dim] = stored.shape;
  const numbers = (part) => {
    const { dtype, data_offsets: [from, to] } = header[`${name}.${part}`];
    const start = 8 + length + from;
    if (dtype === "U8") return bytes.subarray(start, 8 + length + to);
    const read = { F16: [2, half], F32: [4, (v, at) => v.getFloat32(at, true)] }[dtype];
    const count = (to - from) / read[0];
    return Float32Array.from({ length: count }, (_, i) => read[1](view, start + i * read[0]));
  };
  let vectors;
  if (kind === "dense") vectors = numbers("values");
  else {
    // real = scale * code + offset, with the first code in the lowest bits of a byte.
    const [codes, scale, offset] = ["codes", "scale", "offset"].map(numbers);
    const { bits } = stored;
    const at = (i) => (codes[(i * bits) >> 3] >> ((i * bits) & 7)) & ((1 << bits) - 1);
    vectors = new Float32Array(items * dim);
    for (let i = 0; i < items * dim; i += 1) {
      const row = Math.floor(i / dim);
      vectors[i] = Math.fround(Math.fround(at(i) * scale[row]) + offset[row]);
    }
  }
  return { vectors, items, dim, ...settings.fold_in, gram: gram(vectors, items, dim) };
};

const half = (view, at) => {
  const word = view.getUint16(at, true);
  const sign = word >> 15 ? -1 : 1;
  const exponent = (word >> 10) & 31;
  const fraction = word & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
};

// V'V, which is the same for every visitor.
const gram = (vectors, items, dim) => {
  const sums = new Float64Array(dim * dim);
  for (let item = 0; item < items; item += 1)
    for (let i = 0; i < dim; i += 1) {
      const left = vectors[item * dim + i];
      for (let j = 0; j <= i; j += 1) sums[i * dim + j] += left * vectors[item * dim + j];
    }
  return sums;
};

// The visitor's system A = w V'V + l2 (n + w items) I + F'F as L with A = L L', F the n films picked.
PLAY.system = (model, picked) => {
  const { vectors, dim } = model;
  const a = model.gram.map((sum) => model.unobserved_weight * sum);
  const ridge = model.l2 * (picked.length + model.unobserved_weight * model.items);
  for (let i = 0; i < dim; i += 1) {
    a[i * dim + i] += ridge;
    for (const item of picked)
      for (let j = 0; j <= i; j += 1) a[i * dim + j] += vectors[item * dim + i] * vectors[item * dim + j];
  }
  for (let i = 0; i < dim; i += 1)
    for (let j = 0; j <= i; j += 1) {
      let sum = a[i * dim + j];
      for (let k = 0; k < j; k += 1) sum -= a[i * dim + k] * a[j * dim + k];
      a[i * dim + j] = i === j ? Math.sqrt(sum) : sum / a[j * dim + j];
    }
  return a;
};

// x with L L' x = right.
PLAY.solve = (factor, right) => {
  const dim = right.length;
  const x = Float64Array.from(right);
  for (let i = 0; i < dim; i += 1) {
    for (let j = 0; j < i; j += 1) x[i] -= factor[i * dim + j] * x[j];
    x[i] /= factor[i * dim + i];
  }
  for (let i = dim - 1; i >= 0; i -= 1) {
    for (let j = i + 1; j < dim; j += 1) x[i] -= factor[j * dim + i] * x[j];
    x[i] /= factor[i * dim + i];
  }
  return x;
};

const row = ({ vectors, dim }, item) => vectors.subarray(item * dim, (item + 1) * dim);
const product = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

// The k best films that are not picked, best first; equal scores by lowest number.
PLAY.recommend = (model, picked, k = 10) => {
  const { vectors, items, dim } = model;
  const right = new Float64Array(dim);
  for (const item of picked) row(model, item).forEach((value, i) => (right[i] += value));
  const factor = PLAY.system(model, picked);
  const user = PLAY.solve(factor, right);
  const known = new Set(picked);
  const best = [];
  for (let item = 0; item < items; item += 1) {
    let score = 0;
    for (let i = 0, at = item * dim; i < dim; i += 1) score += user[i] * vectors[at + i];
    if ((best.length === k && score <= best[k - 1].score) || known.has(item)) continue;
    let place = best.length;
    while (place && best[place - 1].score < score) place -= 1;
    best.splice(place, 0, { item, score });
    best.length = Math.min(best.length, k);
  }
  return { best, factor };
};

// What each picked film adds to the score of another: they sum to it (Hu et al. 2008, equation 7).
PLAY.reasons = (model, factor, picked, item) => {
  const weights = PLAY.solve(factor, row(model, item));
  const parts = picked.map((film) => ({ item: film, part: product(row(model, film), weights) }));
  return parts.sort((a, b) => b.part - a.part);
};
