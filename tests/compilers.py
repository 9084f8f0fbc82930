"""A compiler that fails, and what is said of it."""

import logging


def failing(*_arguments, **_settings):
    raise RuntimeError("\n  no compiler here\nand a long trace")


def warnings(caplog):
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.name for record in found} <= {"advmix"}
    return [record.getMessage() for record in found]
