// RLOO: a completion is compared with the others of its group alone, so that its own reward is no part of its baseline.
//
// Ahmadian et al. 2024, "Back to Basics" (arXiv 2402.14740), the RLOO estimator. For k completions of a
// problem with rewards R:
//   A_i = R_i - 1/(k - 1) sum over j != i of R_j  =  k/(k - 1) (R_i - mean of R)

/** The advantage of a reward in a group of `count` rewards of this mean; 0 where there is nothing to compare with. */
export function leaveOneOut(reward: number, mean: number, count: number): number {
  return count < 2 ? 0 : (count / (count - 1)) * (reward - mean);
}
