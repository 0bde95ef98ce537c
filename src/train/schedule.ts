// Learning-rate schedules: linear warm-up, then constant, linear or cosine decay.

export interface ScheduleOptions {
  readonly learningRate: number;
  readonly warmupSteps: number;
  readonly schedule: 'constant' | 'linear' | 'cosine';
  /** Share of the learning rate that is left at the last step. */
  readonly minLearningRateRatio: number;
}

/** The learning rate of step `step`, counted from 0, of `steps`. */
export function learningRateAt(step: number, steps: number, o: ScheduleOptions): number {
  if (step < o.warmupSteps) return (o.learningRate * (step + 1)) / o.warmupSteps;
  const decay = Math.max(1, steps - o.warmupSteps - 1);
  const done = Math.min(1, (step - o.warmupSteps) / decay);
  const left = { constant: 1, linear: 1 - done, cosine: 0.5 * (1 + Math.cos(Math.PI * done)) }[o.schedule];
  return o.learningRate * (o.minLearningRateRatio + (1 - o.minLearningRateRatio) * left);
}
