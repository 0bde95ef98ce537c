// Which blocks of the KV cache hold the beginnings of earlier sequences, so that a prompt that begins alike need not be
// computed again. Keys and values depend on nothing but the tokens up to them, bit for bit.
import { BLOCK } from '../compute/op/attention/layout.js';

/**
 * A tree of whole blocks by their tokens. Whoever uses a block uses those before it as well; so where nobody uses a
 * block, nobody uses those after it.
 */
export interface PrefixTree {
  /** Blocks of the longest known beginning of the tokens, at most `most` of them. */
  find(ids: readonly number[], most: number): number[];
  /**
   * Remembers the whole blocks of a sequence.
   * @param table its blocks, in order
   */
  remember(ids: readonly number[], table: readonly number[]): void;
  /** Whether the tree holds a block. */
  has(block: number): boolean;
  /**
   * Forgets the block that was found or remembered longest ago among those that nobody uses.
   * @returns that block, or null where there is none
   */
  forget(isUsed: (block: number) => boolean): number | null;
}

interface Node {
  readonly block: number;
  readonly key: string;
  readonly parent: Node | null;
  readonly children: Map<string, Node>;
}

export function createPrefixTree(): PrefixTree {
  const roots = new Map<string, Node>();
  /** In the order of their last use: children before their parents, so that the oldest unused one has no children. */
  const order = new Map<number, Node>();

  const keyOf = (ids: readonly number[], index: number) =>
    ids.slice(BLOCK * index, BLOCK * (index + 1)).join();

  function touch(last: Node | null): void {
    for (let node = last; node; node = node.parent) {
      order.delete(node.block);
      order.set(node.block, node);
    }
  }

  return {
    find(ids, most) {
      const blocks: number[] = [];
      let last: Node | null = null;
      let children = roots;
      for (let i = 0; i < most; i++) {
        const node = children.get(keyOf(ids, i));
        if (!node) break;
        blocks.push(node.block);
        last = node;
        children = node.children;
      }
      touch(last);
      return blocks;
    },
    remember(ids, table) {
      let parent: Node | null = null;
      let children = roots;
      for (let i = 0; BLOCK * (i + 1) <= ids.length; i++) {
        const key = keyOf(ids, i);
        let node = children.get(key);
        // Another sequence computed the same meanwhile: what comes after hangs on its block, not on this one's.
        if (node && node.block !== table[i]) break;
        if (!node) {
          node = { block: table[i], key, parent, children: new Map() };
          children.set(key, node);
        }
        parent = node;
        children = node.children;
      }
      touch(parent);
    },
    has: (block) => order.has(block),
    forget(isUsed) {
      for (const [block, node] of order) {
        if (isUsed(block)) continue;
        order.delete(block);
        (node.parent?.children ?? roots).delete(node.key);
        return block;
      }
      return null;
    },
  };
}
