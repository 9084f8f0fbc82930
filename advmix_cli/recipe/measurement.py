"""How a network of others is measured: where it comes from, what it takes, on which images, by whom.

What a flag of `advmix eval` says is a field of a `Measurement`, and --set edits it as it edits a recipe.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, Field, JsonValue, PositiveInt, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from advmix_cli.errors import RecipeError, UsageError, printable
from advmix_cli.recipe import problems
from advmix_cli.recipe.fields import Positive, Section
from advmix_cli.recipe.load import Document, Edit, load, parse_setting, toml_value
from advmix_cli.recipe.positions import Path, Position
from advmix_cli.recipe.schema import (
    AutoAttackEvaluator,
    Data,
    Engine,
    Evaluator,
    Evaluators,
    PgdEvaluator,
    PristineEvaluator,
    Threat,
    Validation,
)


def _has_two_parts(factory: str) -> str:
    place, _, name = factory.rpartition(":")
    if not place or not factory.isprintable() or not all(part.isidentifier() for part in name.split(".")):
        raise PydanticCustomError("factory", "write package.module:name, or path/to/file.py:name")
    return factory


def _ascends(numbers: tuple[float, float]) -> tuple[float, float]:
    if not numbers[0] < numbers[1]:
        raise PydanticCustomError("range", "must ascend: what black is, then what white is")
    return numbers


Factory = Annotated[str, AfterValidator(_has_two_parts)]
PixelRange = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_ascends)]


class Normalization(Section):
    """(x - mean)/std for each channel, in the units of the input range; one number is every channel's."""

    mean: Annotated[tuple[float, ...], Field(strict=False)]
    std: Annotated[tuple[Positive, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _has_as_many(self) -> Self:
        if len(self.mean) != len(self.std):
            raise PydanticCustomError(
                "channels", "{mean} means and {std} standard deviations", {"mean": len(self.mean), "std": len(self.std)}
            )
        return self


class ForeignModel(Section):
    """A torch module that Python code makes, and how an image in [0, 1] becomes what it takes."""

    factory: Factory
    """package.module:name, or path/to/file.py:name; what is called makes the module."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Its keyword arguments."""
    input_range: PixelRange = (0.0, 1.0)
    """What black and white are to the module."""
    normalize: Normalization | None = None

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std) of `normalize`, if there is one."""
        return self.normalize and (self.normalize.mean, self.normalize.std)

    def __str__(self) -> str:
        """For a person, on one line."""
        low, high = self.input_range
        parts = [self.factory]
        parts += [f"{name}={value!r}" for name, value in self.args.items()]
        parts.append(f"input range {low:g} to {high:g}")
        if self.statistics:
            mean, std = (",".join(f"{one:g}" for one in of) for of in self.statistics)
            parts.append(f"normalised by {mean}/{std}")
        return ", ".join(parts)


class MeasuringEngine(Section):
    """How the arithmetic is done. It is fp32, always."""

    channels_last: bool = False
    """Off by default, since code of others may take views that only the contiguous layout has."""
    compile: Literal["auto", "off"] = "auto"
    """What attacks look at is compiled where that is long enough, and where it agrees with the module itself."""
    threads: PositiveInt | None = None
    """Of the CPU; by default torch's own choice."""


class Measuring(Protocol):
    """What measuring needs to be told. A recipe tells it, and so does a `Measurement`."""

    @property
    def data(self) -> Data: ...
    @property
    def model(self) -> Section: ...
    @property
    def threat(self) -> Threat: ...
    @property
    def validation(self) -> Validation: ...
    @property
    def engine(self) -> Engine | MeasuringEngine: ...
    @property
    def evaluators(self) -> tuple[Evaluator, ...]: ...


FIELD = Threat(epsilon=8 / 255)


def of_the_field(threat: Threat) -> tuple[Evaluator, ...]:
    """Pristine, PGD20 with steps of ε/4, AutoAttack standard."""
    return (
        PristineEvaluator(kind="pristine"),
        PgdEvaluator(kind="pgd", steps=20, step_size=threat.quarter),
        AutoAttackEvaluator(kind="autoattack", version="standard"),
    )


class Measurement(Section):
    """A network of others, and how it is judged: by default as its field does, at 8/255."""

    model: ForeignModel
    data: Data
    threat: Threat = FIELD
    engine: MeasuringEngine = MeasuringEngine()
    evaluators: Evaluators = of_the_field(FIELD)

    @property
    def validation(self) -> Validation:
        """Nothing is held out: advmix has not trained it."""
        return Validation(fraction=0.0)

    def resolved(self) -> dict[str, Any]:
        """Every field with its value, as TOML can hold it (what is None is left out)."""
        return self.model_dump(mode="json", exclude_none=True)


def measurement(
    model: str, args: str | None, input_range: str | None, normalize: str | None, data: str | None, recipe: str | None,
    settings: Sequence[str],
) -> Measurement:  # fmt: skip
    """What the flags of `advmix eval` say, on top of the data, the threat, the evaluators and the threads of `recipe`;
    RecipeError with a line for each problem, under the name of its flag."""
    if data is None and recipe is None:
        raise UsageError("--model wants --data NAME, or --recipe RECIPE for its data, threat and evaluators")
    edits = [_edit("--model", "model.factory", model)]
    if args is not None:
        edits.append(_edit("--model-args", "model.args", _table("--model-args", args)))
    if input_range is not None:
        if len(ends := _numbers("--input-range", input_range)) != 2:
            raise UsageError(f"--input-range: '{printable(input_range)}' is not two numbers; write LOW,HIGH")
        edits.append(_edit("--input-range", "model.input_range", ends))
    if normalize is not None:
        mean, slash, std = normalize.partition("/")
        if not slash:
            raise UsageError(
                f"--normalize: '{printable(normalize)}' has no '/': write 0.5/0.25, or 0.5,0.5,0.4/0.2,0.2,0.3"
            )
        numbers = {"mean": _numbers("--normalize", mean), "std": _numbers("--normalize", std)}
        edits.append(_edit("--normalize", "model.normalize", numbers))
    if data is not None:
        edits.append(_edit("--data", "data", {"source": data}))
    document = Document(_judged(recipe), {(): Position("the measurement" if recipe is None else f"--recipe {recipe}")})
    edits += map(parse_setting, settings)
    edited = document.edited(edits)
    try:
        found = Measurement.model_validate(edited.data)
    except ValidationError as error:
        raise RecipeError(*problems.describe(error, Measurement, edited.where)) from None
    given = [".".join(map(str, edit.path)) for edit in edits]
    if recipe is not None or {"evaluators", "evaluators.1", "evaluators.1.step_size"}.intersection(given):
        return found
    first, second, *others = found.evaluators
    if not isinstance(second, PgdEvaluator):
        return found
    # The default steps follow an ε that was given.
    own = found.threat if second.epsilon is None else Threat(epsilon=second.epsilon)
    followed = second.model_copy(update={"step_size": own.quarter})
    return found.model_copy(update={"evaluators": (first, followed, *others)})


def _judged(recipe: str | None) -> dict[str, Any]:
    """How a network is judged by `recipe`, or by default."""
    if recipe is None:
        fields = Measurement.model_fields
        model = Measurement.model_construct(threat=fields["threat"].default, evaluators=fields["evaluators"].default)
        return model.model_dump(mode="json", exclude_none=True, include={"threat", "evaluators"})
    found = load(recipe)
    engine = {} if found.engine.threads is None else {"threads": found.engine.threads}
    compiled = {"compile": "off"} if found.engine.compile == "off" else {}
    judged = {name: found.resolved()[name] for name in ("data", "threat", "evaluators")}
    return {**judged, "engine": {**engine, **compiled}}


def _edit(flag: str, path: str, value: object) -> Edit:
    parts: Path = tuple(path.split("."))
    return Edit(parts, value, Position(flag))


def _numbers(flag: str, text: str) -> list[float]:
    """ "0.5, 0.25" -> [0.5, 0.25]."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag}: '{printable(text)}' is not numbers with commas between them") from None


def _table(flag: str, text: str) -> object:
    try:
        return toml_value(text)
    except ValueError:
        what = printable(text)
        raise UsageError(
            f"{flag}: '{what}' is not a TOML table; write '{{num_classes=10, name=\"a string\"}}'"
        ) from None
