// The penalty on tokens that a text holds already (Keskar et al. 2019, CTRL, section 4.1), as Hugging Face's
// `repetition_penalty`: prompt and answer count, each of their tokens once.
import type { TokenControl } from './steer.js';

/** @param penalty above 0; 1 changes nothing, more makes what was said less likely */
export function repetitionPenalty(penalty: number, promptIds: readonly number[]): TokenControl {
  const said = new Set(promptIds);
  return {
    adjust(logits) {
      for (const id of said) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
      return true;
    },
    accept: (id) => said.add(id),
  };
}
