"""A document as one file of HTML: no scripts, nothing from elsewhere, for light and dark, narrow, wide and paper."""

import base64
from typing import assert_never

from advmix_cli.document.parts import Document, Drawing, Listing, Part, Photograph, Section, Text
from advmix_cli.document.style import CSS
from advmix_cli.document.svg import inlined, sized
from advmix_cli.report.escapes import html
from advmix_cli.report.figures import RESOLUTION
from advmix_cli.report.grid import Grid

# Were something of a file to slip through unescaped, it could still load and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def to_html(document: Document) -> str:
    """The whole file."""
    stamps = [_stamp(text) for text in document.stamps] + [
        f"<li><strong>DAMAGED</strong>: {html(text)}</li>" for text in document.damage
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html(document.title)}</title>",
        f"<style>{CSS}</style>",
        "</head>",
        "<body>",
        "<main>",
        "<header>",
        f"<h1>{html(document.title)}</h1>",
        f'<p class="about">{html(document.about)}</p>',
        *(['<ul class="stamps">', *stamps, "</ul>"] if stamps else []),
        "</header>",
        *(_section(section) for section in document.sections),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _stamp(text: str) -> str:
    word, colon, rest = text.partition(":")
    return f"<li><strong>{html(word)}</strong>{colon}{html(rest)}</li>"


def _section(section: Section) -> str:
    name = html("-".join(section.heading.lower().split()))
    lines = [
        f'<section aria-labelledby="{name}">',
        f'<h2 id="{name}">{html(section.heading)}</h2>',
        *(_part(part, f"{name}-{number}") for number, part in enumerate(section.parts, 1)),
        "</section>",
    ]
    return "\n".join(lines)


def _part(part: Part, name: str) -> str:
    match part:
        case Text():
            return f"<p>{html(part.text)}</p>"
        case Listing():
            # Its breaks are kept; nothing else in it is obeyed.
            lines = "\n".join(html(line) for line in part.text.split("\n"))
            return _boxed(f"<pre><code>{lines}</code></pre>", "listing")
        case Grid():
            return part.html()
        case Drawing():
            return _figure(inlined(part.path.with_suffix(".svg").read_text(encoding="utf-8"), name, part.says), part)
        case Photograph():
            content = part.path.read_bytes()
            shown = f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}" alt="{html(part.says)}"'
            return _figure(f'{shown} style="{sized(int.from_bytes(content[16:20]) * 96 / RESOLUTION)}">', part)
        case _:
            assert_never(part)


def _figure(inner: str, part: Drawing | Photograph) -> str:
    return f"<figure>{_boxed(inner, 'figure')}<figcaption>{html(part.says)}</figcaption></figure>"


def _boxed(inner: str, what: str) -> str:
    """What is too wide scrolls in a box of its own, by the keyboard too."""
    return f'<div class="box" role="region" tabindex="0" aria-label="{what}">{inner}</div>'
