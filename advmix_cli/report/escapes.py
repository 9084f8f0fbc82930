"""Text that came from somewhere -> the same text in Markdown, LaTeX and HTML, where nothing in it is obeyed.

In all of them it stays on one line, and control characters are shown, not sent.
"""

import html as standard
import re
from itertools import pairwise

from advmix_cli.errors import printable


def plain(text: str) -> str:
    """On one line."""
    return printable(text).replace("\n", " ")


def html(text: str) -> str:
    """Between tags, or as the value of an attribute within quotes."""
    return standard.escape(plain(text))


# ---- Markdown ------------------------------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """CommonMark with pipe tables. What opens a list or a heading is told only at the start."""
    marked = re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain(text))
    marked = marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^(\s*)([#+-]|\d+(?=[.)]\s))", _opened, marked)


def _opened(found: re.Match[str]) -> str:
    space, mark = found.groups()
    return f"{space}&#{ord(mark[0])};{mark[1:]}" if mark.isdecimal() else f"{space}\\{mark}"


# ---- LaTeX ---------------------------------------------------------------------------------------------------------

_TEX = {
    "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "α": r"$\alpha$", "β": r"$\beta$",
    "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$", "η": r"$\eta$", "κ": r"$\kappa$", "λ": r"$\lambda$",
    "μ": r"$\mu$", "σ": r"$\sigma$", "θ": r"$\theta$", "Δ": r"$\Delta$", "±": r"$\pm$", "−": r"$-$", "–": "--",
    "—": "---", "·": r"$\cdot$", "×": r"$\times$", "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$",
    "∞": r"$\infty$", "…": r"\dots{}", "└": r"\quad{}",
}  # fmt: skip
_LONG, _PIECE = 20, 10
"""Letters: a word of more (a path, a digest) can be broken behind its dots and slashes, and behind each piece."""
_LAST_LETTER = 0x17F
"""Of Latin Extended-A, which pdflatex knows with T1 fonts."""


def tex(text: str) -> str:
    """For any LaTeX with T1 fonts; a character that pdflatex lacks is told by its number."""
    written = re.sub(r"\S+", lambda found: _word(found[0]), plain(text))
    # Behind the \\ of a line before it these would be an argument.
    return f"{{}}{written}" if written.lstrip().startswith(("[", "*")) else written


def _word(word: str) -> str:
    letters = [_character(here, after) for here, after in pairwise(f"{word} ")]
    if len(letters) <= _LONG:
        return "".join(letters)
    pieces = re.finditer(rf"[^./_]{{1,{_PIECE}}}[./_]*|[./_]+", word)
    return r"\allowbreak{}".join("".join(letters[piece.start() : piece.end()]) for piece in pieces)


def _character(here: str, after: str) -> str:
    if here in _TEX:
        return _TEX[here]
    if here in "-?!" and after in "-`":
        return f"{here}{{}}"  # two of them would be another sign
    letter = here.isalpha() and ord(here) <= _LAST_LETTER
    return here if here.isascii() or letter else f"[U+{ord(here):04X}]"
