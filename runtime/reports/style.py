"""The style sheet of the report."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --card: #ffffff; --text: #1b1f24; --quiet: #57606a; --line: #d9dde2;
  --soft: #f0f2f5; --accent: #0b5cad;
  --good: #0f6a38; --good-soft: #e3f4e9; --bad: #a3151b; --bad-soft: #fdeaea;
  --warn: #7a4a00; --warn-soft: #fff3d9;
  --base: #59636f; --dependencies: #1d68b0; --model: #b04a08; --source: #6a4ca3;
  --other: #3c6e71;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #13161a; --card: #1b1f25; --text: #e7eaee; --quiet: #a5aeb9; --line: #343b45;
    --soft: #242a32; --accent: #7bb8f5;
    --good: #7fd6a4; --good-soft: #14301f; --bad: #ff9f9f; --bad-soft: #3b181b;
    --warn: #f2c46d; --warn-soft: #33270d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 48px; }
h1, h2, h3 { line-height: 1.25; margin: 0; text-wrap: balance; }
h1 { font-size: 30px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin-bottom: 14px; display: flex; gap: 10px; align-items: center; }
h2.aside { margin: 26px 0 10px; font-size: 15px; color: var(--quiet); font-weight: 600; }
h3 { font-size: 16px; margin: 20px 0 8px; display: flex; gap: 10px; align-items: center; }
p { margin: 0 0 12px; max-width: 78ch; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .9em; }
code { overflow-wrap: anywhere; }
code[title] { cursor: help; }
.kicker { margin: 0 0 4px; color: var(--quiet); font-size: 14px; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 22px 24px; margin: 0 0 18px; }
section.bad { border-color: var(--bad); border-left-width: 5px; }
.verdict { display: flex; gap: 14px; align-items: flex-start; margin: 16px 0 20px;
  padding: 14px 18px; border-radius: 8px; font-size: 18px; line-height: 1.45; }
.verdict p { margin: 0; text-wrap: pretty; }
.verdict.done { background: var(--good-soft); }
.verdict.failed { background: var(--bad-soft); box-shadow: inset 5px 0 var(--bad); }
.verdict.done strong { color: var(--good); }
.verdict.failed strong { color: var(--bad); }
.verdict .mark { width: 28px; height: 28px; margin-top: -1px; }
.mark { flex: none; width: 17px; height: 17px; border-radius: 50%; padding: 1px; }
.mark path { fill: none; stroke: var(--card); stroke-width: 2.2; stroke-linecap: round;
  stroke-linejoin: round; }
.mark.done { background: var(--good); }
.mark.failed { background: var(--bad); }
.mark.missing { background: var(--quiet); }
.badge { display: inline-flex; gap: 6px; align-items: center; font-size: 14px; font-weight: 600;
  white-space: nowrap; }
.badge.done { color: var(--good); }
.badge.failed { color: var(--bad); }
.badge.missing { color: var(--quiet); }
.facts { display: flex; flex-wrap: wrap; gap: 12px 34px; margin: 0 0 16px; }
.facts > div { min-width: 0; }
.facts dt { color: var(--quiet); font-size: 13px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
section > :last-child, article > :last-child, header > :last-child,
.columns > div > :last-child, .manifests > :last-child pre { margin-bottom: 0; }
header .facts dd { font-size: 16px; font-weight: 600; }
.columns { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 12px 40px; }
.columns .facts { display: grid; gap: 10px; }
.road { list-style: none; margin: 0 0 24px; padding: 0; display: grid; gap: 22px;
  grid-template-columns: repeat(6, minmax(0, 1fr)); }
.road li { position: relative; display: flex; flex-direction: column; gap: 3px; min-width: 0;
  background: var(--card); border: 1px solid var(--line); border-top: 4px solid var(--good);
  border-radius: 8px; padding: 10px 12px; }
.road li.failed { border-color: var(--bad); background: var(--bad-soft); }
.road li.missing { border: 1px dashed var(--quiet); border-top-width: 4px; }
.road li + li::before { content: ""; position: absolute; left: -17px; top: calc(50% - 5px);
  width: 9px; height: 9px; border: solid var(--quiet); border-width: 2px 2px 0 0;
  transform: rotate(45deg); }
.stop { font-weight: 650; }
.product { font-size: 13px; color: var(--quiet); overflow-wrap: anywhere; flex: 1; }
.outcome { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 8px;
  font-size: 14px; }
.seconds { font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; margin: 0 0 14px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0 0 6px; }
th, td { text-align: left; vertical-align: top; padding: 6px 14px 6px 0;
  border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--quiet); font-size: 13px; font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
th, td, th code, td code { overflow-wrap: break-word; }
tbody tr:last-child > * { border-bottom: 0; }
.right { text-align: right; white-space: nowrap; }
.layers { display: flex; gap: 2px; height: 38px; margin: 4px 0 16px; border-radius: 6px;
  overflow: hidden; }
.layer { flex: 0 0 5px; display: flex; align-items: center; justify-content: center;
  overflow: hidden; color: #fff; font-size: 14px; font-weight: 600; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 8px; }
.base { background: var(--base); }
.dependencies { background: var(--dependencies); }
.model { background: var(--model); }
.source { background: var(--source); }
.other { background: var(--other); }
.answers { max-width: 760px; }
.contents { min-width: 660px; }
.contents th { white-space: nowrap; }
.signature td:nth-child(2) { min-width: 9em; }
.times td:last-child, .times th:last-child { width: 60%; }
.times td { vertical-align: middle; }
.bar { display: block; height: 14px; min-width: 2px; border-radius: 3px;
  background: var(--accent); }
.note { color: var(--quiet); }
.note.warning { color: var(--warn); background: var(--warn-soft); border-radius: 6px;
  padding: 8px 12px; max-width: none; }
.bad .note.warning { color: var(--bad); background: var(--bad-soft); font-weight: 600; }
pre { margin: 0 0 12px; padding: 12px 14px; background: var(--soft); border-radius: 6px;
  overflow-x: auto; line-height: 1.5; }
pre code { overflow-wrap: normal; }
.yaml b { font-weight: 600; color: var(--accent); }
.manifests { display: grid; gap: 6px; grid-template-columns: minmax(0, 1fr); }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: 4px; overflow-wrap: anywhere; }
article + article { border-top: 1px solid var(--line); margin-top: 18px; padding-top: 4px; }
article:first-of-type h3 { margin-top: 0; }
details { margin: 0 0 12px; }
summary { cursor: pointer; color: var(--accent); margin-bottom: 8px; width: fit-content; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.next { margin: 0; padding-left: 22px; }
.next li { margin-bottom: 10px; max-width: 90ch; overflow-wrap: anywhere; }
.next pre { margin: 6px 0 0; }
@media (max-width: 1040px) {
  .road { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .columns { grid-template-columns: minmax(0, 1fr); }
  .columns .facts { display: flex; gap: 12px 34px; }
}
@media (min-width: 561px) and (max-width: 1040px) {
  .road li:nth-child(4)::before { display: none; }
}
@media (max-width: 560px) {
  main { padding: 12px 10px 32px; }
  section, header { padding: 16px 14px; }
  h1 { font-size: 25px; }
  .verdict { font-size: 16px; padding: 12px; gap: 10px; }
  .road { grid-template-columns: minmax(0, 1fr); gap: 20px; }
  .road li + li::before { left: calc(50% - 5px); top: -19px; transform: rotate(135deg); }
  th, td { padding-right: 12px; }
  .times td:last-child, .times th:last-child { width: 40%; }
}
@media print {
  :root { --ground: #fff; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  section, header { padding: 12px 14px; margin-bottom: 10px; }
  h2, h3, caption, figcaption { break-after: avoid; }
  tr, li, figure, .facts > div, .layers { break-inside: avoid; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .scroll { overflow: visible; }
}
"""
