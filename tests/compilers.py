"""A compiler that fails, and what is said of it."""

import logging
import os
import shutil

import pytest

needs_compiler = pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="there is no C++ compiler")


def failing(*_arguments, **_settings):
    raise RuntimeError("\n  no compiler here\nand a long trace")


def warnings(caplog):
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.name for record in found} <= {"advmix"}
    return [record.getMessage() for record in found]
