"""The kinds of value that a recipe's fields have.

Pixels are in [0, 1]; ε and step sizes are in these units and may be written as a fraction, `"8/255"`.
"""

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

_FRACTION = r"^\s*\d+(\.\d+)?\s*/\s*\d+(\.\d+)?\s*$"


def _read_pixels(value: object) -> object:
    """ "8/255" -> 0.03137...; a number stays; above 1 is refused with the unit explained."""
    if isinstance(value, str):
        if not re.match(_FRACTION, value):
            raise PydanticCustomError("pixels", 'is neither a number nor a fraction such as "8/255"')
        numerator, denominator = (float(part) for part in value.split("/"))
        if denominator == 0:
            raise PydanticCustomError("pixels", "divides by zero")
        value = numerator / denominator
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 1:
        raise PydanticCustomError(
            "pixels", 'is above 1: pixels are in [0, 1], so 8 grey levels of 255 are written "8/255"'
        )
    return value


def _write_pixels(value: float) -> float | str:
    """The fraction k/255 where the value is exactly that, the number itself otherwise."""
    level = round(value * 255)
    return f"{level}/255" if level / 255 == value and 0 < level < 255 else value


_PlainZero = AfterValidator(lambda value: value + 0.0)
"""-0.0 is another text, and so would be another digest, of the same number."""

Pixels = Annotated[
    float,
    Field(ge=0, le=1),
    BeforeValidator(_read_pixels),
    _PlainZero,
    PlainSerializer(_write_pixels),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": _FRACTION}]}
    ),
]


PositivePixels = Annotated[Pixels, Field(gt=0)]


def _only_int(value: object) -> object:
    """Python has 1 == 1.0 == True, and a Literal compares."""
    if type(value) is not int:
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


WholeNumber = BeforeValidator(_only_int)
"""For a Literal of integers."""
Count = Annotated[int, Field(ge=0, le=1_000_000)]
PositiveCount = Annotated[int, Field(gt=0, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, le=3e38)]
Rate = Annotated[float, Field(gt=0, le=3e38, description="Learning rate; float32 ends at 3.4e38.")]
NonNegative = Annotated[float, Field(ge=0, le=3e38), _PlainZero]
Fraction = Annotated[float, Field(ge=0, le=1), _PlainZero]
Half = Annotated[float, Field(ge=0, le=0.5), _PlainZero]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1), _PlainZero]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(pattern=r"^[\w][\w .+@=-]{0,39}$")]
Title = Annotated[str, Field(max_length=120, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Flip = Annotated[bool, Field(description="Mirror each image with probability 1/2.")]
Translate = Annotated[
    NonNegativeInt,
    Field(description="Shift each image by up to this many pixels, in both axes; what comes in is black."),
]


class Section(BaseModel):
    """A table of a recipe: immutable, without unknown keys, type coercions or non-finite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
