"""A small recipe file in a directory of its own."""

import pytest
from full_recipes import SMALL

from advmix_cli.errors import RecipeError
from advmix_cli.recipe.load import load


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory that holds r.toml, a valid recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(SMALL, encoding="utf-8")
    return tmp_path


@pytest.fixture
def problems(here):
    """problems({old: new}, "a.b=1") -> the message's lines for r.toml with the text replaced and fields set."""

    def find(replaced=None, *settings):
        text = SMALL
        for old, new in (replaced or {}).items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (here / "r.toml").write_bytes(text.encode())
        with pytest.raises(RecipeError) as caught:
            load("r.toml", settings)
        return str(caught.value).split("\n")

    return find
