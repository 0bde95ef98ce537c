// Progress of anything that is counted: a bar with rate and time left on a terminal, now and then a line elsewhere.
import { clearLive, drawLive, duration, live, say } from './terminal.js';

export interface Progress {
  /** Shows how far the work is; each note is a row of what it does or found. */
  update(done: number, total: number, ...notes: string[]): void;
  end(): void;
}

const BAR = 24;
/** Between redrawings. */
export const REDRAW_MS = 80;
/** Between lines where there is no terminal; what ends sooner needs none. */
const LINE_MS = 10_000;

/** @param unit what is counted, for the rate */
export function openProgress(what: string, unit: string): Progress {
  const began = performance.now();
  let last = live ? Number.NEGATIVE_INFINITY : began;
  let first: number | null = null;
  return {
    update(done, total, ...notes) {
      const now = performance.now();
      // A resumed run begins in the middle: the rate is of what was done since.
      first ??= done;
      const elapsed = (now - began) / 1000;
      const rate = elapsed > 0 ? (done - first) / elapsed : 0;
      if (live) {
        if (now - last < REDRAW_MS && done < total) return;
        last = now;
        drawLive([
          `${bar(done / Math.max(1, total))} ${describe(what, done, total, rate, unit)}`,
          ...notes.filter(Boolean),
        ]);
      } else {
        if (now - last < LINE_MS) return;
        last = now;
        say([describe(what, done, total, rate, unit), ...notes].filter(Boolean).join('  '));
      }
    },
    end: clearLive,
  };
}

export function bar(share: number): string {
  const full = Math.round(BAR * Math.min(1, Math.max(0, share)));
  return `${'█'.repeat(full)}${'░'.repeat(BAR - full)}`;
}

function describe(what: string, done: number, total: number, rate: number, unit: string): string {
  if (rate <= 0) return `${what} ${done}/${total}`;
  const speed = `${rate >= 10 ? rate.toFixed(0) : rate.toFixed(2)} ${unit}/s`;
  const left = done < total ? `, ${duration((total - done) / rate)} left` : '';
  return `${what} ${done}/${total}, ${speed}${left}`;
}
