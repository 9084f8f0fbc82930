"""The kinds that a table of a recipe can have: for lists of the tests that must not lack one."""

from typing import get_args


def kinds_of(union):
    """Of a discriminated union of the schema."""
    members, _ = get_args(union)
    return {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(members)}
