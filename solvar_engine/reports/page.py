"""The frame of the report: its page template and style sheet; system fonts only."""

from __future__ import annotations

from string import Template

STYLE_SHEET = """
:root { --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --paper: #ffffff; --ground: #f5f7fa;
        --accent: #0072b2; --warn: #b34700; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55;
       font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header .inner, nav .inner { max-width: 1080px; margin: 0 auto; padding: 0 28px; }
header { background: var(--paper); border-top: 5px solid var(--accent); padding: 34px 0 26px; }
header .kicker { color: var(--accent); font-size: 13px; letter-spacing: .09em; text-transform: uppercase;
                 font-weight: 600; }
h1 { font-size: 30px; line-height: 1.2; margin: 4px 0 18px; overflow-wrap: anywhere; }
h2 { font-size: 22px; margin: 44px 0 14px; scroll-margin-top: 60px; }
h3 { font-size: 16px; margin: 0 0 12px; }
.lead { font-size: 18px; max-width: 58em; margin: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 0; }
.tile { background: var(--ground); border-radius: 8px; padding: 12px 18px; min-width: 128px; }
.tile .value { font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile .label { color: var(--soft); font-size: 13px; }
.note { color: var(--warn); margin: 16px 0 0; }
nav { position: sticky; top: 0; background: var(--paper); border-top: 1px solid var(--line);
      border-bottom: 1px solid var(--line); z-index: 1; }
nav .inner { display: flex; flex-wrap: wrap; gap: 4px 22px; padding-top: 10px; padding-bottom: 10px; }
nav a { color: var(--soft); text-decoration: none; font-size: 14px; }
nav a:hover { color: var(--accent); text-decoration: underline; }
figure, .card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
                margin: 0 0 20px; padding: 22px 24px; }
figure img { display: block; width: 100%; height: auto; }
figcaption, .hint { color: var(--soft); font-size: 14.5px; max-width: 64em; margin-top: 12px; }
table { border-collapse: collapse; font-size: 14.5px; width: 100%; font-variant-numeric: tabular-nums; }
.numbers th, .numbers td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); }
.numbers th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.numbers td:last-child { white-space: nowrap; }
.numbers th:first-child, .numbers td:first-child { text-align: left; }
.doubtful td { color: #7b8794; background: var(--ground); }
.doubtful td:last-child { color: var(--warn); font-weight: 600; }
.card .pairs { margin-bottom: 22px; }
.pairs th, .pairs td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line);
                       vertical-align: top; }
.pairs th { color: var(--soft); font-weight: 500; width: 32%; }
.pairs td { overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; padding: 10px 0 50px; }
@media print { nav { display: none; } body { background: white; } figure, .card { break-inside: avoid; } }
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><div class="inner">
<div class="kicker">Cryo-EM heterogeneity report</div>
<h1>$name</h1>
<p class="lead">$paragraph</p>
<div class="tiles">
$tiles
</div>
$notes
</div></header>
<nav><div class="inner">
$navigation
</div></nav>
<main>
$body
<footer>Every figure is also a PNG file in analysis/figures, every table a CSV file of the run.</footer>
</main>
</body>
</html>
""")
