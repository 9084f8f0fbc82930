"""A probe as tables."""

from advmix_cli.method.maximizers import Pristine
from advmix_cli.probing.compare import BASELINES, Standing
from advmix_cli.probing.numbers import Paired, Share, Spread, Undefined
from advmix_cli.probing.probe import Probe
from advmix_cli.recipe import schema
from advmix_cli.report.costs import three_digits
from advmix_cli.report.grid import Cell, Grid, folded
from advmix_cli.report.tables import levels

QUANTILES = ("mean", "min", "10 %", "median", "90 %", "max")
NONE = Cell("–")


def grids(found: Probe) -> list[Grid]:
    """What to print, in this order."""
    return [_path(found), _ratios(found), _shares(found), _algorithms(found)]


def _path(found: Probe) -> Grid:
    look = found.look
    rows = [
        (
            Cell("start" if not number else f"step {number}"),
            *_quantiles(place.loss),
            _percent(place.at_epsilon),
        )
        for number, place in enumerate(look.path)
    ]
    rows.append((Cell("trained on"), *_quantiles(look.reached), Cell("")))
    what = f"the first batch of a training, {len(found.x):,} images"
    captions = (
        f"network: {found.network}; {_method(found)}",
        "the adversary's objective, image by image; trained on: d(f(x'), y') of the batch that comes out of it"
        + (" (TRADES trains on another loss)" if found.recipe.loss.trades_beta else ""),
    )
    title = f"{found.recipe.title}: {what}" if found.recipe.title else what
    return Grid(title, ("inner loss", *QUANTILES, "δ at ±ε"), tuple(rows), captions)


def _method(found: Probe) -> str:
    chosen = found.recipe.maximizer
    if isinstance(chosen, schema.NoMaximizer):
        return 'maximizer "none": nothing is attacked, and nothing is mixed'
    ascent = chosen.ascent
    return (
        f'maximizer "{chosen.kind}", {ascent.steps} steps of {levels(ascent.step_size)}, '
        f"ε = {levels(found.recipe.threat.epsilon)}"
    )


def _ratios(found: Probe) -> Grid:
    look = found.look
    if isinstance(look.ratio_before, Undefined):
        named = (("λ", look.ratio_before),)
    else:
        named = (
            ("λ before", look.ratio_before),
            ("λ after", look.ratio_after),
            ("|after−before|", look.ratio_moved),
            ("|λ_y − λ_x|", look.label_shift),
        )
    rows = [
        (Cell(name, (folded(value.why, 14),)), *[NONE] * 7)
        if isinstance(value, Undefined)
        else (Cell(name), *_quantiles(value), Cell(f"{value.n:,}"))
        for name, value in named
    ]
    caption = "λ: the share of x_i; λ_y, that of its label, shows in pairs of two classes alone"
    return Grid("", ("mixing ratio", *QUANTILES, "n"), tuple(rows), (caption,))


def _shares(found: Probe) -> Grid:
    look = found.look
    named = (
        ("δ at ±ε", look.at_epsilon),
        ("δ held by [0, 1] before that", look.at_image_bound),
        ("self-pairs", look.self_pairs),
        ("same sign: δ_i and δ_j of a mixture", look.signs_in_a_pair),
        ("same sign: δ of an image in both roles", look.signs_of_an_image),
    )
    rows = [
        (Cell(name, (value.why,)), NONE, NONE)
        if isinstance(value, Undefined)
        else (Cell(name), _percent(value), Cell(f"{value.count:,} of {value.n:,}"))
        for name, value in named
    ]
    caption = "same sign: of the components that may move both ways in both, without self-pairs"
    return Grid("", ("after the last step", "share", ""), tuple(rows), (caption,))


def _algorithms(found: Probe) -> Grid:
    columns = ("algorithm", "start", "end", "trained on", *(f"− alg. {name.split()[0]}" for name in BASELINES))
    rows = tuple(_standing(standing) for standing in found.standings)
    own = next((standing.name for standing in found.standings if standing.own), None)
    captions = [
        "all on the same images, from the same δ, λ and pairs: those of Algorithm 6, whose λ is at least κ",
        "start, end: the mean of each one's own objective before its first step and after its last",
        "trained on: the mean of d(f(x'), y') of the batch that comes out",
        "− alg.: the difference of that, image by image; ± half of its 95% interval (Student's t), and where it is "
        "above 0",
    ]
    if isinstance(found.climb.maximizer, Pristine):
        captions.append("the recipe has no ascent: five steps of ε/2 for all, as in the paper's Tables 1 and 2")
    elif own is None:
        captions.append("the recipe's own combination is not among them")
    return Grid("", columns, rows, tuple(captions))


def _standing(standing: Standing) -> tuple[Cell, ...]:
    return (
        Cell(standing.name, ("this recipe's",) if standing.own else ()),
        Cell(_number(standing.path[0])),
        Cell(_number(standing.path[-1])),
        Cell(_number(standing.reached.mean)),
        *(_paired(standing.against.get(name)) for name in BASELINES),
    )


def _paired(paired: Paired | None) -> Cell:
    if paired is None:
        return NONE
    notes = (f"± {(paired.high - paired.low) / 2:.3f}", f"> 0: {_share(paired.larger)}")
    return Cell(_signed(paired.mean), notes)


def _quantiles(spread: Spread) -> tuple[Cell, ...]:
    return tuple(Cell(_number(value)) for value in (spread.mean, *spread.quantiles))


def _percent(share: Share | Undefined) -> Cell:
    return NONE if isinstance(share, Undefined) else Cell(_share(share))


def _share(share: Share) -> str:
    return f"{100 * share.value:.1f} %"


def _number(value: float) -> str:
    """Four decimals; beyond a thousand three digits and what stands before the point."""
    return f"{value:.4f}" if abs(value) < 1000 else three_digits(value)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
