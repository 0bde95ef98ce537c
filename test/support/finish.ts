// Runs a loop to its end.

/** Every step, and what the loop said at last. */
export async function finish<S, R>(loop: AsyncGenerator<S, R>): Promise<{ steps: S[]; result: R }> {
  const steps: S[] = [];
  for (;;) {
    const next = await loop.next();
    if (next.done) return { steps, result: next.value };
    steps.push(next.value);
  }
}
