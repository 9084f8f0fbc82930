"""How the page looks: in the light, in the dark, and on paper."""

from advmix_cli.document.svg import VARIABLES

_LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1b1b",
    "grey": "#5c5c5c",
    "grid": "#dcdcdc",
    "soft": "#f4f4f2",
    "stamp": "#b42318",
}
_DARK = {
    "paper": "#161618",
    "ink": "#ececec",
    "grey": "#a8a8a8",
    "grid": "#3c3c40",
    "soft": "#212124",
    "stamp": "#ff9b8f",
}


def _declared(colours: dict[str, str], at: int) -> str:
    own = {**colours, **{name: pair[at] for name, pair in VARIABLES.items()}}
    return " ".join(f"--{name}: {value};" for name, value in own.items())


CSS = (
    f"""
:root {{ color-scheme: light dark; {_declared(_LIGHT, 0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_declared(_DARK, 1)} }} }}
@media print {{ :root:root {{ color-scheme: light; {_declared(_LIGHT, 0)} }} }}
"""
    """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif;
}
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .7rem; padding-bottom: .2rem; border-bottom: 1px solid var(--grid); }
p { margin: .5rem 0; }
.about, .note, figcaption { color: var(--grey); }
.note, figcaption { font-size: .875rem; max-width: 60rem; margin: .35rem 0; }
.stamps { list-style: none; margin: 1rem 0; padding: 0; }
.stamps li {
  border-left: .3rem solid var(--stamp); background: var(--soft); padding: .4rem .8rem; margin: .4rem 0;
}
.stamps strong { color: var(--stamp); }
.box { overflow-x: auto; max-width: 100%; margin: .8rem 0; container-type: inline-size; }
.box:focus-visible { outline: 2px solid var(--grey); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3rem 0 .5rem; overflow-wrap: anywhere; }
caption:empty { display: none; }
caption span { display: inline-block; position: sticky; left: 0; max-width: 100cqw; }
th, td {
  padding: .4rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--grid);
  white-space: nowrap;
}
th:first-child {
  text-align: left; padding-left: 0; white-space: normal; min-width: 6.5rem; max-width: 22rem;
  overflow-wrap: anywhere; position: sticky; left: 0; background: var(--paper);
}
.words { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 14rem; max-width: 46rem; }
th[scope=row] { font-weight: 500; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
small { display: block; color: var(--grey); font-size: .8rem; font-weight: 400; }
pre {
  margin: 0; padding: .8rem 1rem; background: var(--soft); width: max-content; min-width: 100%;
  font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; width: 100%; fill: currentColor; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure img { display: block; width: 100%; height: auto; background: #ffffff; }
@media print {
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  figure, tr, .stamps li { break-inside: avoid; }
  .box { overflow: visible; }
  table { overflow-wrap: break-word; }
  th, td { padding: .2rem .35rem; white-space: normal; }
  .words { min-width: 0; }
  pre { white-space: pre-wrap; width: auto; }
  figure svg, figure img { min-width: 0 !important; }
}
"""
)
