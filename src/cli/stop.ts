// Ctrl-C: the first asks the work to stop at a safe point, the second ends the process at once.
import { say } from './terminal.js';

const controller = new AbortController();

function onSignal(): void {
  if (controller.signal.aborted) process.exit(130);
  controller.abort();
  say('stopping after the step under way; press Ctrl-C again to end at once');
}

export const stopSignal = {
  /** Aborted by the first Ctrl-C. Installs the handlers at its first use. */
  get signal(): AbortSignal {
    if (process.listenerCount('SIGINT', onSignal) === 0) {
      process.on('SIGINT', onSignal);
      process.on('SIGTERM', onSignal);
    }
    return controller.signal;
  },
  release(): void {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  },
};
