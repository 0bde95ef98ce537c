// The style sheet of a report: light and dark, for a phone too, with the fonts of the system.

/** Lines' colours by Okabe and Ito, told apart by most colour-blind readers; lighter ones on dark ground. */
const LIGHT = ['#0072b2', '#d55e00', '#009e73', '#b0528f', '#8a6d00', '#2b8cbe', '#444444', '#7a3fc0'];
const DARK = ['#56b4e9', '#ff9a4d', '#2bd4a4', '#f0a3cf', '#f0e442', '#9ecae1', '#cccccc', '#b995f0'];
const colors = (list: readonly string[]) => list.map((color, i) => `--s${i}:${color};`).join('');

export const STYLE = `
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--ground:#fff;--panel:#f6f8fa;--rule:#d7dce1;
--right:#1a7f37;--wrong:#b42318;${colors(LIGHT)}}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a3adb8;--ground:#14171b;--panel:#1e2329;--rule:#39414a;
--right:#4ac26b;--wrong:#ff8379;${colors(DARK)}}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:90rem;padding:1rem;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.5rem 0 .5rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.25rem 0 .25rem}
p{margin:.25rem 0 .75rem}
a{color:inherit}
nav a{margin-right:1rem}
.soft{color:var(--soft)}
[hidden]{display:none!important}
form{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:center;background:var(--panel);
border:1px solid var(--rule);border-radius:6px;padding:.5rem .75rem}
fieldset{border:0;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1rem}
legend{float:left;margin-right:.75rem;color:var(--soft)}
form details{flex-basis:100%}
label{display:inline-flex;gap:.35rem;align-items:center;cursor:pointer}
select{font:inherit;max-width:100%}
:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
.swatch{display:inline-block;flex:none;width:1.4em;height:0;border-top:3px solid;vertical-align:middle}
.swatch.dashed{border-top-style:dashed}
#charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:1rem;margin-top:1rem}
figure{margin:0;min-width:0}
figcaption{font-weight:600}
.table{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .75rem .2rem 0;text-align:right;vertical-align:top;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--ground)}
td:has(code){text-align:left}
thead th{border-bottom:1px solid var(--rule);color:var(--soft);font-weight:600;vertical-align:bottom}
tr.mean td{border-bottom:1px solid var(--rule);font-weight:600}
.wrap{white-space:pre-wrap;display:inline-block;min-width:8rem;max-width:40rem}
.bar{display:block;height:4px;background:var(--s0)}
td:has(.bar){min-width:9rem}
.between{color:var(--soft);font-weight:400}
article{border:1px solid var(--rule);border-radius:6px;margin:.75rem 0;padding:.5rem .75rem}
article p{margin:0;display:flex;flex-wrap:wrap;gap:0 1rem}
.right{color:var(--right);font-weight:600}
.wrong{color:var(--wrong);font-weight:600}
pre{margin:.35rem 0;padding:.5rem;background:var(--panel);border-radius:4px;white-space:pre-wrap;overflow-wrap:anywhere;
unicode-bidi:isolate;font:13px/1.45 ui-monospace,monospace}
pre.prompt{border-left:3px solid var(--rule);background:none;padding:.1rem .5rem;color:var(--soft)}
summary{cursor:pointer}
code{font:.9em ui-monospace,monospace}
.uplot{color:var(--ink);width:100%!important}
.u-legend{font-size:12px;text-align:left!important;font-variant-numeric:tabular-nums}
.u-legend tr{display:inline-block;margin-right:.75rem}
.u-legend td,.u-legend th{padding:0 .25rem 0 0!important;white-space:normal;text-align:left}
.u-legend tr.edge{display:none}
.u-legend th{cursor:default;pointer-events:none;font-weight:400}
.u-select{background:var(--soft)!important;opacity:.25}
.u-cursor-x,.u-cursor-y{border-color:var(--soft)!important}
`;
