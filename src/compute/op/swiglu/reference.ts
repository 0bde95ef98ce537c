// SwiGLU's activation in float64: the definition that kernels are tested against.

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

export function swigluReference(gate: Float64Array, up: Float64Array): Float64Array {
  return gate.map((g, i) => g * sigmoid(g) * up[i]);
}

export function swigluGradientReference(
  gate: Float64Array,
  up: Float64Array,
  dy: Float64Array,
): [Float64Array, Float64Array] {
  const dgate = gate.map((g, i) => {
    const s = sigmoid(g);
    return dy[i] * up[i] * (s + g * s * (1 - s));
  });
  return [dgate, gate.map((g, i) => dy[i] * g * sigmoid(g))];
}
