"""What a picture would not show by itself."""

from itertools import pairwise

import pytest

from advmix_cli.probing.figures import _apart


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 5.0, 9.0], [1.0, 5.0, 9.0]),
        ([1.0, 1.0, 1.5, 9.0], [1.0, 2.0, 3.0, 9.0]),
        ([2.0, 9.5, 9.6, 9.7], [2.0, 8.0, 9.0, 10.0]),
        ([10.0], [10.0]),
    ],
)
def test_names_at_the_ends_of_lines_do_not_touch(values, expected):
    found = _apart(values, 1.0, 10.0)
    assert found == expected
    assert all(above - below >= 1 for below, above in pairwise(found))
