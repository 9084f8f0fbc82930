"""What is said of the errors of others."""

import pytest

from advmix_cli.errors import first_line

COMPILER = """C++ compile error

Command:
g++ /tmp/a/main.cpp -O3

Output:
In file included from /tmp/a/main.cpp:2:
/tmp/a/main.cpp:7:1: fatal error: error writing to /tmp/cc.s: No space left on device
compilation terminated. error: more
"""
FULL = "/tmp/a/main.cpp:7:1: fatal error: error writing to /tmp/cc.s: No space left on device"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", "RuntimeError"),
        ("\n  first \nsecond", "RuntimeError: first"),
        (COMPILER, f"RuntimeError: C++ compile error: {FULL}"),
        ("C++ compile error\n\nOutput:\nkilled", "RuntimeError: C++ compile error"),
    ],
)
def test_of_a_page_the_line_that_tells(said, line):
    assert first_line(RuntimeError(said)) == line
