"""Differences between runs in a table: on the same images alone, and called noise where they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.outcome import Evaluated
from advmix_cli.evaluation.significance import Interval, Paired, pooled, wilson
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.evaluation.verdicts import NOTHING, Verdicts
from advmix_cli.report.ablation import Line, ablation_grid, ablation_records
from advmix_cli.report.differences import Difference, Right, _load, difference, gaps, p_value, pooled_interval, right
from advmix_cli.report.results import Measured, Results
from advmix_cli.report.tables import gap_line, shown
from advmix_cli.rundir import VERDICTS


@pytest.fixture
def ran(tmp_path):
    """ran(name, right, best=None, seed=0): the results and the directory of a run whose PGD20 has these verdicts."""

    def make(name, verdicts, best=None, seed=0, images="f"):
        directory, entries = tmp_path / f"{name}{seed}", []
        chosen = [("last", 5, verdicts)] + ([] if best is None else [("best on validation", 3, best)])
        for selection, epoch, found in chosen:
            robust = torch.from_numpy(found)
            broken = torch.where(robust, NOTHING, 0).to(torch.int8)
            whole = Verdicts(("pgd",), torch.ones_like(robust), broken, robust.float() - 0.5)
            one = Evaluated.of("PGD20", whole, torch.zeros(len(found), dtype=torch.int64), 1.0, {"split": "test"}, {})
            weights = f"{name}{seed}{epoch}" * 8
            path = verdict_files.place(directory / VERDICTS, "PGD20", epoch, weights)
            Record(one, weights, images, ("0",)).save(path)
            entries.append(Measured(selection, epoch, weights, (one.outcome,)))
        known = Results("t", seed, f"d{seed}", 5, 9, {"test": images}, measured=tuple(entries), finished=True)
        return known, directory

    return make


def row(name, *runs):
    return Line(name, tuple(known for known, _ in runs), tuple(directory for _, directory in runs), {})


def some(share, n=400, seed=0):
    return np.random.default_rng(seed).random(n) < share


def notes(*lines):
    grid = ablation_grid("T", ("PGD20",), lines)
    return [cell.notes for _, cell in grid.rows], grid.captions


def test_the_verdicts_of_a_run_are_found_by_what_they_must_hold(ran):
    known, directory = ran("a", some(0.5))
    found = right(known, directory, "last", "PGD20")
    assert found.verdicts.tolist() == some(0.5).tolist()
    assert found.images == "f"
    assert right(known, directory, "best", "PGD20") is right(known, directory, "last", "square") is None
    (path,) = (directory / "verdicts").iterdir()
    path.rename(directory / "elsewhere")
    other = ran("b", some(0.6))[1]
    next((other / "verdicts").iterdir()).rename(path)
    verdict_files.load(path)  # whole, but of another run
    from advmix_cli.report import differences

    differences._load.cache_clear()
    assert right(known, directory, "last", "PGD20") is None


def test_a_large_difference_has_its_p_and_a_small_one_is_noise(ran):
    first, better = some(0.4), some(0.4) | some(0.1, seed=1)
    same = first.copy()
    same[:3] = ~same[:3]
    shown, captions = notes(row("A", ran("a", first)), row("B", ran("b", better)), row("C", ran("c", same)))
    paired = Paired.of(first, better)
    assert not any("Δ" in note for note in shown[0])
    assert shown[1][-1] == f"Δ {100 * paired.difference:+.1f}, p {paired.p:.2g}"
    assert paired.p < 0.05
    paired = Paired.of(first, same)
    assert shown[2][-1] == f"Δ {100 * paired.difference:+.1f}, p {paired.p:.2g}, noise"
    assert captions[1].startswith("Δ: against the row A, on the same images, p by McNemar's exact test")


def test_the_interval_of_noise_has_one_decimal_however_near_to_nothing_it_ends():
    assert shown("Δ", Difference(-0.038, Interval(-0.077, 0.0004), 5, None)) == "Δ -3.8 (-7.7 to 0.0), noise"
    assert shown("Δ", Difference(-0.038, Interval(-0.077, -0.0004), 5, None)) == "Δ -3.8 (-7.70 to -0.04)"


def test_with_several_seeds_a_difference_counts_the_seeds_too(ran):
    pairs = [(some(0.4, seed=s), some(0.4, seed=s) | some(0.2, seed=9 + s)) for s in range(3)]
    lines = [row(name, *(ran(name, pair[k], seed=s) for s, pair in enumerate(pairs))) for k, name in enumerate("AB")]
    shown, captions = notes(*lines)
    values = np.array([second.astype(float) - first for first, second in pairs])
    low, high = pooled(values)
    assert low > 0
    assert shown[1][-1] == f"Δ {100 * values.mean():+.1f} ({100 * low:.1f}–{100 * high:.1f})"
    assert shown[0][1].startswith("pooled ")
    assert captions[-1].startswith("±: the standard deviation of the seeds; pooled: ")
    assert captions[2].endswith("images. Of 3 seeds such an interval is too short where these lie apart.")
    # The same three pairs in which the gain of one seed is the loss of another are noise.
    mixed = [row("A", *(ran("x", pairs[s][s % 2], seed=s) for s in range(3)))]
    mixed += [row("B", *(ran("y", pairs[s][1 - s % 2], seed=s) for s in range(3)))]
    values = np.array([pair[1 - s % 2].astype(float) - pair[s % 2] for s, pair in enumerate(pairs)])
    low, high = pooled(values)
    assert low < 0 < high
    expected = f"Δ {100 * values.mean():+.1f} ({100 * low:.1f} to {100 * high:.1f}), noise"
    assert notes(*mixed)[0][1][-1] == expected


def test_a_difference_of_fewer_seeds_than_the_means_have_says_of_how_many(ran):
    first, better = some(0.4), some(0.4) | some(0.1, seed=1)
    worse = [ran("b", some(0.1, seed=s), seed=s) for s in (1, 2)]
    lines = [row("A", ran("a", first)), row("B", ran("b", better), *worse)]
    nowhere = lines[0].directories
    lines[0] = replace(lines[0], runs=(*lines[0].runs, None, None), directories=3 * nowhere)
    shown, captions = notes(*lines)
    paired = Paired.of(first, better)
    assert shown[1][0].startswith("3 seeds ± ")
    assert "UNFINISHED: 4 of 6 cells have ended" in captions
    assert shown[1][-1] == f"Δ {100 * paired.difference:+.1f} with 1 seed, p {paired.p:.2g}"
    assert "with 1 seed: p by McNemar's exact test, of two networks, and not of two methods" in captions
    several = [ran("c", some(0.4, seed=s), seed=s) for s in (0, 1)]
    lines = [row("C", *several, ran("c", first, seed=2)), row("D", *several)]
    lines[1] = replace(lines[1], runs=(*lines[1].runs, None), directories=(*lines[1].directories, *nowhere))
    shown, captions = notes(*lines)
    assert shown[1][-1] == "Δ +0.0 with 2 seeds, noise"
    next((lines[0].directories[2] / VERDICTS).iterdir()).unlink()
    _load.cache_clear()
    shown, _ = notes(*lines)
    assert shown[0][1].endswith(" of 2 seeds")
    assert shown[0][1].startswith("pooled ")
    assert not any("McNemar" in caption for caption in captions)


def test_a_row_that_lacks_a_seed_is_compared_with_the_same_ones(ran):
    first, second = (some(0.4), some(0.6)), (some(0.5, seed=1), some(0.55, seed=2))
    whole = row("A", *(ran("a", first[seed], seed=seed) for seed in range(2)))
    lines = [whole, row("B", ran("b", second[1], seed=1))]
    paired = Paired.of(first[1], second[1])
    assert notes(*lines)[0][1][-1].startswith(f"Δ {100 * paired.difference:+.1f} with 1 seed")
    *_, last = ablation_records(("PGD20",), lines)
    assert (last["seed"], last["gained"], last["lost"]) == (1, paired.gained, paired.lost)
    assert last["pooled_interval_seeds"] is None
    assert ablation_records(("PGD20",), lines)[0]["pooled_interval_seeds"] == 2


def test_of_how_few_seeds_a_difference_is_is_said_where_each_row_has_enough(ran):
    lines = [
        row(name, *(ran(name, some(0.5, seed=seed), seed=seed) for seed in seeds))
        for name, seeds in (("A", range(5)), ("B", range(3, 8)))
    ]
    assert any(" Of 2 seeds such an interval is too short " in caption for caption in notes(*lines)[1])


def test_rows_that_begin_with_other_seeds_are_paired_from_there(ran):
    verdicts = [some(0.4), some(0.6), some(0.5, seed=1), some(0.55, seed=2)]
    lines = [row("A", *(ran("a", verdicts[n], seed=n) for n in range(2)))]
    lines.append(replace(row("B", *(ran("b", verdicts[2 + n], seed=7 + n) for n in range(2))), first_seed=7))
    values = np.array([verdicts[2 + n].astype(float) - verdicts[n] for n in range(2)])
    *_, last = ablation_records(("PGD20",), lines)
    assert (last["pooled_difference"], last["pooled_seeds"]) == (pytest.approx(values.mean()), 2)
    assert last["difference"] == pytest.approx(values[1].mean())


def test_the_gap_between_the_best_and_the_last_epoch_is_that_of_the_same_run(ran):
    last, best = some(0.4), some(0.4) | some(0.1, seed=1)
    shown, captions = notes(row("A", ran("a", last, best=best)))
    paired = Paired.of(last, best)
    assert shown[1][-1] == f"gap {100 * paired.difference:+.1f}, p {paired.p:.2g}"
    assert any(
        caption.startswith("gap: to the row's own last epoch, as it was trained, on the same images")
        for caption in captions
    )


def test_rows_of_other_images_have_no_difference_and_that_is_said(ran):
    shown, captions = notes(row("A", ran("a", some(0.4))), row("B", ran("b", some(0.5, n=300))))
    assert not any("Δ" in note for note in shown[1])
    assert "PGD20: not measured on the same images in all rows, so some have no Δ" in captions
    assert not any(caption.startswith("UNFINISHED") for caption in captions)


def test_the_records_of_several_seeds_have_the_difference_that_the_table_shows(ran):
    pairs = [(some(0.4, seed=s), some(0.4, seed=s) | some(0.2, seed=9 + s)) for s in range(3)]
    lines = [row(name, *(ran(name, pair[k], seed=s) for s, pair in enumerate(pairs))) for k, name in enumerate("AB")]
    values = np.array([second.astype(float) - first for first, second in pairs])
    *_, last = ablation_records(("PGD20",), lines)
    found = [last[f"pooled_difference{end}"] for end in ("", "_low", "_high")]
    assert found == [values.mean(), *pooled(values)]
    assert last["pooled_seeds"] == 3
    assert last["difference"] == pytest.approx(values[2].mean())
    assert ablation_records(("PGD20",), lines)[0]["pooled_difference"] is None


def test_nothing_is_said_of_other_images_or_other_counts():
    one = Right(some(0.5), "f", {})
    assert difference([one], [Right(some(0.5), "g", {})]) is None
    assert difference([one], [Right(some(0.5, n=399), "f", {})]) is None
    assert difference([one], [None]) is None
    assert difference([one], [one._replace(settings={"epsilon": 0.1})]) is None
    assert pooled_interval([one, one._replace(images="g")]) is pooled_interval([one]) is None
    assert difference([one, None], [one, one]).seeds == 1


def test_records_have_the_differences_unrounded(ran):
    first, second = some(0.4), some(0.5, seed=1)
    lines = [row("A", ran("a", first)), row("B", ran("b", second))]
    own, other = ablation_records(("PGD20",), lines)
    paired = Paired.of(first, second)
    assert (other["against"], other["gained"], other["lost"]) == ("A, last", paired.gained, paired.lost)
    assert (other["p"], other["difference"], other["difference_low"]) == (
        paired.p,
        paired.difference,
        paired.interval.low,
    )
    assert (own["against"], own["gained"], own["lost"], own["p"]) == (None, None, None, None)
    assert own["pooled_low"] is None
    known, directory = ran("a", first)
    stamped = replace(known.measured[0], selection="best on test")
    (record,) = ablation_records(("PGD20",), [row("A", (replace(known, measured=(stamped,)), directory))])
    assert record["test_selected"] is True
    assert own["test_selected"] is False


def test_a_run_has_a_gap_for_each_evaluator_that_measured_both_epochs(ran):
    last, best = some(0.4), some(0.4) | some(0.1, seed=1)
    known, directory = ran("a", last, best=best)
    found = gaps(known, directory)
    paired = Paired.of(last, best)
    assert found.keys() == {"PGD20"}
    assert found["PGD20"].paired == paired
    assert gap_line(found).endswith(f"in points: PGD20: {100 * paired.difference:+.1f}, p {paired.p:.2g}")
    written = found["PGD20"].to_json()
    assert written["gained"] == paired.gained
    assert (written["low"], written["high"]) == paired.interval
    assert gaps(*ran("b", last)) == {}


def test_a_best_epoch_is_compared_with_its_own_last_one_and_not_with_the_first_row(ran):
    last, best = some(0.4, seed=3), some(0.45, seed=4)
    lines = [row("A", ran("a", some(0.5))), row("B", ran("b", last, best=best))]
    record = ablation_records(("PGD20",), lines)[2]
    paired = Paired.of(last, best)
    assert (record["against"], record["gained"], record["difference"]) == ("B, last", paired.gained, paired.difference)


def test_the_first_row_s_best_epoch_is_compared_with_its_last_one_too(ran):
    last, best = some(0.4), some(0.45, seed=1)
    _, record = ablation_records(("PGD20",), [row("A", ran("a", last, best=best))])
    paired = Paired.of(last, best)
    assert (record["against"], record["gained"], record["difference"]) == ("A, last", paired.gained, paired.difference)


def test_a_single_pair_has_no_pooled_difference(ran):
    lines = [row("A", ran("a", some(0.4))), row("B", ran("b", some(0.5, seed=1)))]
    *_, last = ablation_records(("PGD20",), lines)
    assert last["difference"] is not None
    assert last["pooled_difference"] is last["pooled_seeds"] is None


def test_rows_that_were_not_measured_alike_are_not_compared(ran):
    lines = [row("A", ran("a", some(0.5))), row("B", ran("b", some(0.9, seed=1)))]
    known = lines[1].runs[0]
    (entry,) = known.measured
    outcome = replace(entry.outcomes[0], settings={"split": "test", "epsilon": 0.5})
    other = replace(known, measured=(replace(entry, outcomes=(outcome,)),))
    shown, captions = notes(lines[0], Line("B", (other,), lines[1].directories, {}))
    assert not any("Δ" in note for note in shown[1])
    assert "PGD20: not measured with the same epsilon in all rows, so some have no Δ" in captions


def test_a_last_row_that_alone_was_measured_otherwise_is_noticed(ran):
    *same, last = (row(name, ran(name, some(0.5))) for name in "ABC")
    (entry,) = last.runs[0].measured
    outcome = replace(entry.outcomes[0], settings={"split": "test", "epsilon": 0.5})
    other = replace(last.runs[0], measured=(replace(entry, outcomes=(outcome,)),))
    captions = notes(*same, replace(last, runs=(other,)))[1]
    assert "PGD20: not measured with the same epsilon in all rows, so some have no Δ" in captions


def test_seeds_that_looked_at_different_images_are_not_pooled():
    same = [Right(some(0.5, seed=number), "f", {}) for number in range(4)]
    other = same[2]._replace(images="g"), same[3]._replace(images="g")
    assert difference(same[:2], same[2:]).seeds == 2
    assert difference([same[0], other[0]], [same[1], other[1]]) is None


def test_a_row_whose_verdicts_are_lost_says_so(ran):
    lines = [row("A", ran("a", some(0.5))), row("B", ran("b", some(0.9, seed=1)))]
    said = "B: without its verdicts on each image some Δ and pooled intervals cannot be given"
    assert said not in notes(*lines)[1]
    (path,) = (lines[1].directories[0] / "verdicts").iterdir()
    path.unlink()
    _load.cache_clear()
    shown, captions = notes(*lines)
    assert said in captions
    assert not any("Δ" in note for note in shown[1])


def test_a_row_of_which_one_seed_s_verdicts_are_lost_says_so(ran):
    line = row("A", *(ran("a", some(0.5, seed=seed), seed=seed) for seed in range(2)))
    next((line.directories[1] / VERDICTS).iterdir()).unlink()
    said = "A: without its verdicts on each image some Δ and pooled intervals cannot be given"
    assert said in notes(line)[1]


def test_an_accuracy_s_pooled_interval_ends_at_0_and_1_and_is_no_point_there():
    nothing = Right(np.zeros(100, dtype=bool), "f", {})
    low, high = pooled_interval([nothing, nothing])
    assert (low, high) == wilson(0, 100)
    few = Right(np.arange(100) < 4, "f", {})
    assert 0 < pooled_interval([nothing, few]).low < 0.02 < pooled_interval([nothing, few]).high


def test_what_is_no_noise_does_not_look_like_it():
    sharp = Difference(0.046, Interval(0.0003, 0.092), 3, None)
    assert shown("Δ", sharp) == "Δ +4.6 (0.03–9.20)"
    assert shown("Δ", Difference(0.046, Interval(1e-8, 0.092), 3, None)) == "Δ +4.6 (0.0000–9.2000)"
    assert shown("Δ", Difference(-0.046, Interval(-0.092, -0.0003), 3, None)) == "Δ -4.6 (-9.20 to -0.03)"
    close = Paired(1000, 25, 42)
    assert 0.0495 < close.p < 0.05
    assert shown("Δ", Difference(close.difference, close.interval, 1, close)) == "Δ -1.7, p <0.05"
    assert [p_value(p) for p in (0.0494, 0.04999, 0.05, 1e-9)] == ["0.049", "<0.05", "0.05", "1e-09"]


def test_an_interval_that_ends_at_0_holds_it():
    assert [Difference(0.0, Interval(*ends), 3, None).is_noise for ends in ((0.0, 0.1), (-0.1, 0.0))] == [True, True]


def test_a_difference_of_which_nothing_varies_is_not_certain():
    won = [Right(np.array([one]), "f", {}) for one in (False, True)]
    found = difference([won[0]] * 2, [won[1]] * 2)
    assert (found.value, found.interval, found.is_noise) == (1.0, (1.0, 1.0), True)
