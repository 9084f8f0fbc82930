"""Runs and tables on the disk, as a training leaves them, without one."""

import json
from html.parser import HTMLParser

import tomli_w

from advmix_cli.ablation.cells import cells
from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.recipe.load import Document, parse_setting
from advmix_cli.recipe.table import load_table
from advmix_cli.report.results import Measured, Results

HOSTILE = "<script>alert(1)</script> \" onload='x' & 50% of {a_b}$c$#1~^\\end{table} `![x](http://e)` --> *|* λ, 中"
MACHINE = {"from_epoch": 1, "from_batches": 0, "torch": "2.14", "device": "a CPU", "engine": "eager"}


def outcome(name, correct, n=200):
    settings = {"split": "test", "epsilon": 8 / 255}
    return Outcome(name, n, correct, {"clean": n - correct}, 1.5, settings, {"torch": "2.14"}, "v")


def epoch_lines(count, *, drop=None, **changes):
    """As metrics.jsonl has them; from epoch `drop` on with a tenth of the learning rate."""
    lines = []
    for epoch in range(1, count + 1):
        robust = 0.5 - 0.3 / epoch - (0.02 * (epoch - 4) if epoch > 4 else 0)
        line = {
            "epoch": epoch, "loss": 2.5 / epoch, "ratio": 0.9, "inner_loss_before": 1.5 / epoch,
            "inner_loss_after": 2.4 / epoch, "lr": 0.01 if drop and epoch >= drop else 0.1, "seconds": 2.0,
            "images_per_second": 900.0, "validation_accuracy": 0.9 - 0.4 / epoch, "validation_pgd_accuracy": robust,
            **changes,
        }  # fmt: skip
        lines.append(line)
    return lines


def write_run(directory, recipe, measured, *, lines=None, title=None, **more):
    """A run of `recipe` in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "recipe.toml").write_text(tomli_w.dumps(recipe.resolved()), encoding="utf-8")
    written = epoch_lines(5) if lines is None else lines
    (directory / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in written))
    known = {
        "title": recipe.title if title is None else title, "seed": recipe.seed, "digest": recipe.digest(),
        "epochs": recipe.schedule.epochs, "train_images": 90, "images": {"train": "a1", "test": "b2"},
        "machines": (MACHINE,), "seconds": 12.5, "measured": tuple(measured), "finished": True, **more,
    }  # fmt: skip
    Results(**known).save(directory)


def digits_table(out, seeds=1, settings=(), rows=None):
    """The cells of the table digits in `out`; the row number i has 100 + 10 i, 60 + 5 i right."""
    table = load_table("digits", settings)
    for number, cell in enumerate(cells(table, seeds, out / "digits")):
        row, seed = number % len(table.rows), number // len(table.rows)
        if rows is None or row in rows:
            found = (outcome("pristine", 100 + 10 * row + seed), outcome("PGD20", 60 + 5 * row - seed))
            write_run(cell.directory, cell.row.recipe, [Measured("last", 5, "w", found)])
    return out / "digits"


def recipe_with(base, *settings):
    return Document(base.resolved(), {}).edited([parse_setting(text) for text in settings]).recipe()


class Checked(HTMLParser):
    """That every tag is closed in its turn, every id is one's own, nothing is loaded and nothing runs."""

    VOID = frozenset({"meta", "img", "path", "use", "br"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.targets, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert len(self.ids) == len(set(self.ids))
        assert set(self.targets) <= set(self.ids), set(self.targets) - set(self.ids)

    def handle_starttag(self, tag, attributes):
        self.text += " " if tag in ("th", "td", "small") else ""
        assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"), tag
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value)
            if name == "aria-labelledby":
                self.targets.append(value)
            if name.rpartition(":")[2] in ("href", "src", "srcset", "action", "data"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:80])
                self.targets += [value[1:]] if value.startswith("#") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data
