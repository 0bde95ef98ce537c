// SentencePiece's BPE and that of tokenizer.json: scores of tokens on one side, a list of merges on the other.
// SentencePiece joins the neighbours that make the token with the best score; the merges list every pair that makes one.

/** A merge by its parts. */
export type Merge = readonly [left: string, right: string];

/**
 * The merges that do what the scores say: every pair of tokens that makes a token, by its score, then the pair with the
 * longer left part first, as transformers orders them when it converts a SentencePiece model.
 * @param scoreOf scores of the tokens that others are joined to; higher is earlier
 */
export function mergesFromScores(scoreOf: ReadonlyMap<string, number>): Merge[] {
  const merges: { pair: Merge; score: number }[] = [];
  for (const [token, score] of scoreOf)
    for (const pair of pairsOf(token, scoreOf)) merges.push({ pair, score });
  merges.sort((a, b) => b.score - a.score || b.pair[0].length - a.pair[0].length);
  return merges.map(({ pair }) => pair);
}

/**
 * The scores that do what the merges say, or what stands against it: SentencePiece joins any two tokens that make a
 * third, so the merges must hold every such pair, and those of one token must follow one another.
 * @param tokens all that can be joined or come of it
 */
export function scoresFromMerges(
  merges: readonly Merge[],
  tokens: ReadonlySet<string>,
): { scores: ReadonlyMap<string, number> } | { obstacle: string } {
  const scores = new Map<string, number>();
  const pairs = new Set<string>();
  let last: string | undefined;
  for (const [rank, [left, right]] of merges.entries()) {
    const token = left + right;
    if (token !== last && scores.has(token))
      return { obstacle: `merges of ${show(token)} stand apart in the list` };
    if (!scores.has(token)) scores.set(token, -rank);
    pairs.add(JSON.stringify([left, right]));
    last = token;
  }
  for (const token of tokens)
    for (const [left, right] of pairsOf(token, tokens))
      if (!pairs.has(JSON.stringify([left, right])))
        return { obstacle: `no merge of ${show(left)} and ${show(right)}, though ${show(token)} is a token` };
  return { scores };
}

function* pairsOf(token: string, tokens: { has(token: string): boolean }): Generator<Merge> {
  for (let at = 1; at < token.length; at++) {
    const pair: Merge = [token.slice(0, at), token.slice(at)];
    if (tokens.has(pair[0]) && tokens.has(pair[1])) yield pair;
  }
}

const show = (token: string) => JSON.stringify(token);
