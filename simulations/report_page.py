"""The page that a report fills in: each name in double braces is replaced once, by something already escaped."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedoel: {{title}}</title>
<style>
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b2530; --muted: #5f6b76; --grid: #dfe4e8;
  --learned: #0072b2; --teacher: #b84f00; --tactics: #00795a; }
@media (prefers-color-scheme: dark) { :root { --page: #14191f; --ink: #e8ecef; --muted: #9aa6b1; --grid: #323c46;
  --learned: #56b4e9; --teacher: #f0904a; --tactics: #3fc79d; } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p.note { color: var(--muted); margin: 0 0 1rem; }
figure { margin: 1.5rem 0 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 48rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem 1.25rem .35rem 0;
  border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
td.number { text-align: right; }
summary { cursor: pointer; font-weight: 600; font-size: 1.1rem; margin-top: 2.5rem; }
</style>
</head>
<body>
<h1>{{headline}}</h1>
<p class="note">{{setting}}</p>
<figure role="img" aria-label="Held-out win rate by cycle; the same numbers are in the tables below.">{{curve}}</figure>
<h2>Cycles</h2>
<p class="note">Rates with 95 % intervals.</p>
{{cycles}}
<h2>Game families</h2>
{{families}}
<h2>Floors</h2>
<p class="note">The same held-out games, played without what was learned, and by their own solutions.</p>
{{floors}}
<h2>Lessons learned</h2>
<p class="note">A weight says how much more (or less, if negative) likely the teacher makes a tactic; support, how often
it could be used.</p>
{{lessons}}
<h2>Gate</h2>
{{gate}}
<h2>Traffic</h2>
{{traffic}}
<h2>Time</h2>
{{seconds}}
<details><summary>Configuration</summary>
{{config}}
</details>
</body>
</html>
"""
