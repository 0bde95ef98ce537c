// A page in jsdom: parsed as browsers do, with its scripts run or not. What jsdom lacks and uPlot needs is stood in for.
import { createRequire } from 'node:module';

/** The part of a DOM element that the tests use; the project is compiled without the types of a browser. */
export interface PageElement {
  readonly tagName: string;
  readonly textContent: string;
  readonly innerHTML: string;
  readonly attributes: Iterable<{ readonly name: string; readonly value: string }>;
  readonly dataset: Record<string, string>;
  readonly hidden: boolean;
  value: string;
  querySelector(selector: string): PageElement | null;
  querySelectorAll(selector: string): Iterable<PageElement>;
  getAttribute(name: string): string | null;
  click(): void;
  dispatchEvent(event: unknown): boolean;
}

export interface Page {
  readonly document: PageElement & { readonly title: string; readonly compatMode: string };
  /** Dispatches an event that bubbles. */
  send(element: PageElement, type: string, init?: Readonly<Record<string, unknown>>): void;
  all(selector: string): PageElement[];
  one(selector: string): PageElement;
  /** What scripts threw, and what the page asked to load. */
  readonly errors: string[];
}

interface Jsdom {
  JSDOM: new (text: string, options: object) => { window: Window };
  VirtualConsole: new () => { on(event: string, listener: (error: Error) => void): void };
}
type Window = Record<string, unknown> & {
  document: Page['document'];
  KeyboardEvent: new (type: string, init: object) => unknown;
  HTMLCanvasElement: { prototype: object };
};

const { JSDOM, VirtualConsole } = createRequire(import.meta.url)('jsdom') as Jsdom;

export function openPage(text: string, { scripts }: { scripts: boolean }): Page {
  const errors: string[] = [];
  const virtualConsole = new VirtualConsole();
  virtualConsole.on('jsdomError', (error) => errors.push(error.message));
  const { window } = new JSDOM(text, {
    virtualConsole,
    ...(scripts && { runScripts: 'dangerously', resources: 'usable', beforeParse: standIn }),
  });
  const { document } = window;
  const all = (selector: string) => [...document.querySelectorAll(selector)];
  return {
    document,
    errors,
    all,
    one(selector) {
      const found = all(selector);
      if (found.length !== 1) throw new Error(`${found.length} elements are ${selector}`);
      return found[0];
    },
    send: (element, type, init = {}) =>
      void element.dispatchEvent(new window.KeyboardEvent(type, { bubbles: true, ...init })),
  };
}

/** A canvas on which nothing is drawn, and no screen. */
function standIn(window: Window): void {
  const nothing = () => {};
  const context = new Proxy(
    { measureText: () => ({ width: 10 }) },
    { get: (known, name) => Reflect.get(known, name) ?? nothing, set: () => true },
  );
  Object.assign(window.HTMLCanvasElement.prototype, { getContext: () => context });
  window.Path2D = class {
    constructor() {
      // biome-ignore lint/correctness/noConstructorReturn: every method of a path does nothing
      return new Proxy(this, { get: () => nothing });
    }
  };
  window.matchMedia = () => ({ matches: false, addEventListener: nothing, removeEventListener: nothing });
  window.ResizeObserver = class {
    observe() {}
  };
}
