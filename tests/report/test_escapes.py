"""A text of anyone's is shown, and never obeyed."""

import re

import pytest

from advmix_cli.report import escapes


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<b>", "&lt;b&gt;"), ("a & b", "a &amp; b"), ("&lt;", "&amp;lt;"), ("a*b_c", r"a\*b\_c"), ("`x`", r"\`x\`"),
        ("[a](b)", r"\[a\](b)"), ("a|b", r"a\|b"), ("\\", r"\\"), ("# a", r"\# a"), ("a # b", "a # b"),
        ("- a", r"\- a"), ("a - b", "a - b"), ("+1.2", r"\+1.2"), ("1. a", "&#49;. a"), ("1.5", "1.5"),
        ("a\nb", "a b"), ("λ ± –", "λ ± –"), ("\x1b[31m", r"\\x1b\[31m"),
    ],
)  # fmt: skip
def test_markdown(text, written):
    assert escapes.markdown(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("--set a", r"-{}-set a"), ("a---b", "a-{}-{}-b"), ("a-b", "a-b"), ("?`", r"?{}\textasciigrave{}"),
        ("└ a", r"\quad{} a"), ("#" * 20, r"\#" * 20),
        ("#" * 21, r"\allowbreak{}".join((r"\#" * 10, r"\#" * 10, r"\#"))),
        ("runs/digits/attack-seed0-b_c", r"\allowbreak{}".join(("runs/", "digits/", "attack-see", r"d0-b\_", "c"))),
        ("[x]", "{}[x]"), ("  *", "{}  *"), ("a[x]", "a[x]"), ("<a>", r"\textless{}a\textgreater{}"),
        ('"', r"\textquotedbl{}"), ("é ß ł", "é ß ł"), ("a中", "a[U+4E2D]"),
        ("→ ≤ κ", r"$\rightarrow$ $\leq$ $\kappa$"),
        ("\\end{table}", r"\textbackslash{}end\{table\}"), ("a\nb", "a b"), ("\x1b", r"\textbackslash{}x1b"), ("", ""),
    ],
)  # fmt: skip
def test_latex(text, written):
    assert escapes.tex(text) == written


def test_latex_of_every_character_holds_none_that_it_would_obey():
    for number in [*range(1, 0x2000), 0x2028, 0x4E2D, 0x1F600]:
        written = escapes.tex(f"a{chr(number)}b")
        told = re.sub(r"\\[a-zA-Z]+|\\[%&_#${}]", "", written)
        assert not set(told) & set("\\%&_#~^\n\r\x1b"), (number, written)
        assert told.count("$") % 2 == 0
        assert told.count("{") == told.count("}")
        assert all(c.isascii() or ord(c) <= 0x17F for c in told), (number, written)


@pytest.mark.parametrize("text", ["<script>", '"', "'", "&", "a\x1b[0mb", "a\nb"])
def test_html(text):
    assert not set(escapes.html(text)) & set("<>\"'\x1b\n")
