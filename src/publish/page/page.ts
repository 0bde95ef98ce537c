// What makes a report's page alive: its choices, its charts, the filter of its completions.
import type uPlot from 'uplot';
import { type Choice, describeChart, drawChart, linesOf, stepCursor, widthOf } from './charts.js';
import type { ReportData } from './curves.js';

/** Begins when the page is there. */
export function startPage(UPlot: typeof uPlot): void {
  const data = JSON.parse(find('#data').textContent ?? '') as ReportData;
  if (data.series.length > 0) startCharts(UPlot, data);
  if (document.querySelector('#completions')) startCompletions();
}

function find<T extends HTMLElement>(selector: string): T {
  const element = document.querySelector<T>(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

const checked = (name: string) =>
  [...document.querySelectorAll<HTMLInputElement>(`input[name="${name}"]:checked`)].map(({ value }) => value);

function startCharts(UPlot: typeof uPlot, data: ReportData): void {
  const form = find<HTMLFormElement>('#choices');
  const charts = find('#charts');
  let drawn: { readonly plot: uPlot; readonly into: HTMLElement }[] = [];

  function choice(): Choice {
    const axis = find<HTMLInputElement>('input[name="x"]:checked');
    return {
      x: axis.value,
      xLabel: axis.closest('label')?.textContent?.trim() ?? axis.value,
      window: Number(find<HTMLSelectElement>('#window').value),
      separate: checked('seeds')[0] === 'separate',
      series: checked('series').map((i) => ({ series: data.series[Number(i)], color: Number(i) })),
    };
  }

  function draw(): void {
    for (const { plot } of drawn) plot.destroy();
    charts.replaceChildren();
    drawn = [];
    const chosen = choice();
    const metrics = checked('metric');
    const without: string[] = [];
    for (const metric of metrics) {
      const lines = linesOf(metric, chosen);
      if (lines.length === 0) without.push(metric);
      else drawn.push(drawMetric(metric, lines, chosen.xLabel));
    }
    find('#chosen').textContent = `${metrics.length} chosen`;
    find('#without').textContent =
      without.length > 0 ? `No shown series has ${without.join(', ')} by ${chosen.xLabel}.` : '';
  }

  function drawMetric(metric: string, lines: ReturnType<typeof linesOf>, xLabel: string) {
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    caption.textContent = metric;
    const into = document.createElement('div');
    into.tabIndex = 0;
    into.setAttribute('role', 'group');
    into.setAttribute('aria-label', describeChart(metric, xLabel, lines));
    figure.append(caption, into);
    charts.append(figure);
    const plot = drawChart(UPlot, into, lines, xLabel);
    // The values at the cursor are read out when the keys move it, not with every move of the mouse.
    const legend = into.querySelector('.u-legend');
    into.addEventListener('keydown', (event) => {
      const by = ({ ArrowLeft: -1, ArrowRight: 1 } as const)[event.key];
      if (by === undefined) return;
      event.preventDefault();
      legend?.setAttribute('aria-live', 'polite');
      stepCursor(plot, by);
    });
    into.addEventListener('pointerenter', () => legend?.removeAttribute('aria-live'));
    return { plot, into };
  }

  form.addEventListener('change', draw);
  form.addEventListener('submit', (event) => event.preventDefault());
  new ResizeObserver(() => {
    for (const { plot, into } of drawn)
      if (plot.width !== widthOf(into)) plot.setSize({ width: widthOf(into), height: plot.height });
  }).observe(charts);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  form.hidden = false;
  draw();
}

function startCompletions(): void {
  const form = find<HTMLFormElement>('#filter');
  const run = find<HTMLSelectElement>('#filter-run');
  const step = find<HTMLSelectElement>('#filter-step');
  const answer = find<HTMLSelectElement>('#filter-answer');
  const articles = [...document.querySelectorAll<HTMLElement>('#completions article')];

  /** The steps of the run; the one chosen stays where the run has it, else the last. */
  function listSteps(): void {
    const before = step.value;
    const steps = [
      ...new Set(articles.filter((a) => a.dataset.run === run.value).map((a) => a.dataset.step ?? '')),
    ];
    const option = (value: string, text: string) => new Option(text, value);
    step.replaceChildren(option('', 'all steps'), ...steps.map((s) => option(s, `step ${s}`)));
    step.value = steps.includes(before) ? before : (steps[steps.length - 1] ?? '');
  }

  function show(): void {
    let shown = 0;
    for (const article of articles) {
      const { run: of, step: at, answer: right } = article.dataset;
      const fits =
        of === run.value &&
        (step.value === '' || at === step.value) &&
        (answer.value === '' || right === answer.value);
      article.hidden = !fits;
      if (fits) shown++;
    }
    for (const note of document.querySelectorAll<HTMLElement>('#completions [data-note]'))
      note.hidden = note.dataset.note !== run.value;
    find('#shown').textContent = `${shown} shown`;
  }

  run.addEventListener('change', listSteps);
  form.addEventListener('change', show);
  form.addEventListener('submit', (event) => event.preventDefault());
  form.hidden = false;
  listSteps();
  show();
}
