"""Every key and item of a TOML text has a position, and it is the right one."""

import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from advmix_cli.recipe.positions import Position, locate


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


characters = st.characters(exclude_categories=["Cs"])
keys = st.text(characters, max_size=6) | st.sampled_from(["a", "b", "c"])
scalars = (
    st.integers(-(2**60), 2**60)
    | st.booleans()
    | st.floats()
    | st.text(characters, max_size=8)
    | st.dates()
    | st.times()
    | st.datetimes()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=4), st.booleans())
def test_exactly_what_tomllib_finds_is_located(data, multiline):
    text = tomli_w.dumps(data, multiline_strings=multiline)
    assert set(locate(text, "f")) == set(paths(tomllib.loads(text)))


@pytest.mark.parametrize(
    "text",
    [
        "a.b.c = 1\n[x.y]\nz.w = {q = [1, {r = 2}]}\n",
        "[[t]]\nk=1\n[t.s]\nm=1\n[[t.u]]\nv=1\n[[t.u]]\nv=2\n[[t]]\nk=2\n[[t.u]]\nv=3\n[t.u.w]\nx=1\n",
        'a = """x\n"q" \\\n  b"""\nb = 1\n',
        "a = '''x\n''q'''\nb = 1\n",
        "a = [ # c\n 1, # d\n 2\n # e\n]\nb = 0x1F\nc = 1_000\nd = +inf\ne = -nan\nf = 1979-05-27T07:32:00Z\n",
        "a = 07:32:00\nb = 1979-05-27 07:32:00.5-07:00\nc = 0o7\nd = 0b1\ne = 1e5\nf = 6.6E-3\n",
        "a . \"b.c\" . 'd' = 1\n[ x . y ] # z\nq = 1\n",
        "a = [[1, 2], [{b = 1}]]\n c = {}\n\td = []\n",
        '1 = 2\n- = 3\n3.14 = 1\n"" = 1\n"a\\tb" = 1\n',
        "a = {b.c = 1, b.d = 2}\n",
        "[b.c]\nx = 1\n[b]\ny = 1\n",
        "# nothing\n",
        "",
    ],
)  # fmt: skip
def test_every_spelling_of_toml_is_located(text):
    assert set(locate(text, "f")) == set(paths(tomllib.loads(text)))


@given(st.lists(st.text(characters, min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
def test_a_position_leads_to_its_key(names):
    """On the line and column of a key stands the key, whatever characters come before it."""
    inner = ", ".join(f"{key} = 1" for key in map(quoted, names))
    text = f"# λ\nouter = {{ {inner} }}\n"
    lines = text.split("\n")
    for name in names:
        place = locate(text, "f")["outer", name]
        assert lines[place.line - 1][place.column - 1 :].startswith(f"{quoted(name)} = 1")


def quoted(name):
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\' or ord(c) < 32 or ord(c) == 127 else c for c in name) + '"'


def test_positions_of_a_small_file():
    text = 'a = 1\n[t]\n  "b" = [10,\n   20]\n[[u]]\nc = {d = 1}\n[[u]]\n[u.v]\ne.f = 1\n'
    assert locate(text, "f") == {
        (): Position("f", 1, 1),
        ("a",): Position("f", 1, 1),
        ("t",): Position("f", 2, 2),
        ("t", "b"): Position("f", 3, 3),
        ("t", "b", 0): Position("f", 3, 10),
        ("t", "b", 1): Position("f", 4, 4),
        ("u",): Position("f", 5, 3),
        ("u", 0): Position("f", 5, 3),
        ("u", 0, "c"): Position("f", 6, 1),
        ("u", 0, "c", "d"): Position("f", 6, 6),
        ("u", 1): Position("f", 7, 3),
        ("u", 1, "v"): Position("f", 8, 2),
        ("u", 1, "v", "e"): Position("f", 9, 1),
        ("u", 1, "v", "e", "f"): Position("f", 9, 1),
    }
