// SentencePiece's BPE and that of tokenizer.json: scores of tokens on one side, a list of merges on the other.
// SentencePiece joins the neighbours that make the token with the best score; the merges list every pair that makes one.

/** A merge by its parts. */
export type Merge = readonly [left: string, right: string];

/**
 * The merges that do what the scores say: every pair of tokens that makes a token, by its score, then the pair with the
 * longer parts first, as transformers orders them when it converts a SentencePiece model.
 * @param scoreOf scores of the tokens that others are joined to; higher is earlier
 */
export function mergesFromScores(scoreOf: ReadonlyMap<string, number>): Merge[] {
  const merges: { pair: Merge; score: number }[] = [];
  for (const [token, score] of scoreOf)
    for (const pair of pairsOf(token, scoreOf)) merges.push({ pair, score });
  merges.sort(
    (a, b) => b.score - a.score || b.pair[0].length - a.pair[0].length || b.pair[1].length - a.pair[1].length,
  );
  return merges.map(({ pair }) => pair);
}

/**
 * The scores that do what the merges say, or what stands against it: SentencePiece joins any two tokens that make a
 * third, so the merges must hold every such pair. Tokens whose merges are mixed in the list have the same score.
 * @param tokens all that can be joined or come of it
 */
export function scoresFromMerges(
  merges: readonly Merge[],
  tokens: ReadonlySet<string>,
): { scores: ReadonlyMap<string, number> } | { obstacle: string } {
  const pairs = new Set(merges.map((pair) => JSON.stringify(pair)));
  for (const token of tokens)
    for (const pair of pairsOf(token, tokens))
      if (!pairs.has(JSON.stringify(pair)))
        return {
          obstacle: `no merge of ${show(pair[0])} and ${show(pair[1])}, though ${show(token)} is a token`,
        };
  const last = new Map<string, number>();
  for (const [rank, pair] of merges.entries()) last.set(pair.join(''), rank);
  const scores = new Map<string, number>();
  let [score, end] = [0, -1];
  for (const [rank, pair] of merges.entries()) {
    const token = pair.join('');
    if (rank > end) score = 0 - rank;
    end = Math.max(end, last.get(token)!);
    scores.set(token, score);
  }
  return { scores };
}

function* pairsOf(token: string, tokens: { has(token: string): boolean }): Generator<Merge> {
  for (let at = 1; at < token.length; at++) {
    const pair: Merge = [token.slice(0, at), token.slice(at)];
    if (tokens.has(pair[0]) && tokens.has(pair[1])) yield pair;
  }
}

const show = (token: string) => JSON.stringify(token);
