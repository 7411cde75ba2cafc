"""The report's style sheet: light and dark by the reader's system, and a form for paper. The colours are the app's."""

from ifguide.ui.palette import TOKEN_BINS


def _bins(scheme: str) -> str:
    grounds = TOKEN_BINS[scheme]["signed"]
    return (
        "".join(f"--b{i}:{colour};" for i, colour in enumerate(grounds)) + f"--token-ink:{TOKEN_BINS[scheme]['ink']};"
    )


_LIGHT = f"--ink:#1f2933;--ground:#ffffff;--panel:#f4f5f7;--line:#d9dee4;--soft:#5a6672;--accent:#2f6690;--teaches:#d9730d;{_bins('light')}"
_DARK = f"--ink:#e4e7eb;--ground:#14171c;--panel:#1e232b;--line:#343b46;--soft:#a3adb8;--accent:#7fb2da;--teaches:#d9730d;{_bins('dark')}"

STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }}
main, footer, .reveal-line {{ max-width: 62rem; margin: 0 auto; padding: 0 1.5rem; }}
h1 {{ font-size: 1.9rem; margin: 2.2rem 0 0.3rem; }}
h2 {{ font-size: 1.3rem; margin: 2.4rem 0 0.6rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 0.4rem; }}
p {{ max-width: 46rem; margin: 0.5rem 0; }}
a {{ color: var(--accent); }}
nav ul {{ list-style: none; display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; margin: 0.8rem 0; padding: 0; font-size: 0.9rem; }}
.soft, .under, figcaption {{ color: var(--soft); }}
.warn {{ border-left: 3px solid var(--teaches); padding: 0.3rem 0.8rem; background: var(--panel); }}
.reveal-line {{ position: sticky; top: 0; z-index: 1; background: var(--panel); border-bottom: 1px solid var(--line); max-width: none; padding: 0.45rem 1.5rem; font-size: 0.9rem; }}
.reveal-line label {{ cursor: pointer; margin-left: 0.4rem; }}
body:has(#reveal:not(:checked)) .veil {{ filter: blur(6px); user-select: none; }}
.scroll {{ overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: 0.6rem 0; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.875rem; }}
th {{ text-align: left; font-size: 0.78rem; color: var(--soft); background: var(--panel); padding: 0.45rem 0.7rem; border-bottom: 1px solid var(--line); vertical-align: bottom; }}
td {{ padding: 0.42rem 0.7rem; border-bottom: 1px solid var(--line); vertical-align: baseline; }}
tr:last-child td {{ border-bottom: 0; }}
.end {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th.end {{ white-space: normal; min-width: 5.2rem; }}
.titled {{ min-width: 12rem; }}
.titled svg {{ margin-right: 0.45rem; }}
.under {{ display: block; font-size: 0.78rem; }}
.code {{ font: 0.78rem ui-monospace, monospace; overflow-wrap: anywhere; }}
figure {{ margin: 0.6rem 0; }}
figcaption {{ font-size: 0.875rem; max-width: 46rem; }}
svg.figure {{ width: 100%; height: auto; max-width: 760px; display: block; }}
svg text {{ fill: var(--ink); font: 13px system-ui, sans-serif; }}
svg .name {{ paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round; }}
svg .tick {{ fill: var(--soft); font-size: 12px; }}
svg .axis {{ stroke: var(--soft); }}
svg .grid {{ stroke: var(--line); stroke-width: 0.7; }}
svg .leader {{ stroke: var(--soft); stroke-width: 0.8; }}
svg .half {{ stroke: var(--soft); stroke-dasharray: 5 4; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }}
.tokens {{ border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem 0.9rem; line-height: 1.9; margin: 0.3rem 0 1.1rem; }}
.tokens span {{ border-radius: 2px; }}
.b0 {{ background: var(--b0); }} .b1 {{ background: var(--b1); }} .b2 {{ background: var(--b2); }} .b4 {{ background: var(--b4); }}
.b5 {{ background: var(--b5); }} .b6 {{ background: var(--b6); }}
.b0, .b1, .b2, .b4, .b5, .b6 {{ color: var(--token-ink); }}
.sel {{ text-decoration: underline 2.5px; text-underline-offset: 4px; text-decoration-skip-ink: none; }}
mark {{ background: none; color: inherit; text-decoration: underline 2px; text-underline-offset: 3px; }}
.high {{ font-weight: 700; color: var(--teaches); }}
.example {{ border: 1px solid var(--line); border-radius: 6px; margin: 0.8rem 0; overflow: hidden; }}
.example > p {{ margin: 0; padding: 0.5rem 0.9rem; background: var(--panel); max-width: none; }}
.example table td {{ width: 50%; }}
.example td.narrow {{ width: 4rem; }}
footer {{ margin-top: 3rem; padding-block: 1rem 3rem; border-top: 1px solid var(--line); font-size: 0.875rem; }}
@media print {{
  :root {{ {_LIGHT} }}
  body {{ font-size: 10.5pt; }}
  .reveal-line, nav {{ display: none; }}
  main {{ max-width: none; padding: 0; }}
  .scroll {{ overflow: visible; }}
  h2 {{ break-after: avoid; }}
  tr, figure, .example, .tokens {{ break-inside: avoid; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""
