"""advmix: adversarially optimized mixup for robust classification, as a declarative command-line tool."""

__version__ = "0.1.0"
