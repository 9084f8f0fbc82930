"""A small recipe as text, and recipes in which every optional field is written, with every model among them."""

SMALL = """\
title = "small"
[data]
source = "digits"
[model]
kind = "preact-resnet"
[threat]
epsilon = "8/255"
[maximizer]
kind = "integrated"
[maximizer.ascent]
steps = 5
step_size = "4/255"
[maximizer.ratio]
kind = "learned"
kappa = 0.65
[optimizer]
kind = "sgd"
lr = 0.1
[schedule]
kind = "steps"
epochs = 3
[[evaluators]]
kind = "pristine"
[[evaluators]]
kind = "pgd"
steps = 20
step_size = "2/255"
"""

_PIECE = {"train_limit": 500, "test_limit": 100, "seed": 3}
_MOVES = {"flip": True, "translate": 2}
_PIXELS = {"epsilon": "7/255", "seed": 5, "split": "validation", "limit": 40, "batch_size": 20}

DATA = [
    {"source": "digits", **_PIECE, **_MOVES},
    {"source": "cifar10", **_PIECE, **_MOVES, "root": "there"},
    {"source": "cifar100", **_PIECE, **_MOVES, "root": "there"},
    {"source": "fashion-mnist", **_PIECE, **_MOVES, "root": "there"},
    {"source": "folder", **_PIECE, **_MOVES, "root": "there", "size": 32, "channels": 3},
]
MODELS = [
    {"kind": "preact-resnet", "depth": 18, "width": 64},
    {"kind": "wide-resnet", "depth": 34, "width": 10},
]
ASCENT = {"steps": 5, "step_size": "4/255", "init": "uniform", "clamp": True, "batch_norm": "batch"}
FROZEN = {"kind": "frozen", "alpha": 0.4, "per": "batch"}
LEARNED = {"kind": "learned", "alpha": 0.4, "per": "batch", "kappa": 0.7, "travel": 1.5, "logit_clamp": 1e-5}
LINEAR = {"kind": "linear", "detach": True}
GEOMETRIC = {"kind": "geometric", "endpoints": "perturbed", "detach": True}
MAXIMIZERS = [
    {"kind": "none"},
    {"kind": "attack", "ascent": ASCENT},
    {"kind": "mix-then-attack", "ascent": ASCENT, "ratio": FROZEN},
    {"kind": "attack-then-mix", "ascent": ASCENT, "ratio": FROZEN, "mix_after": 1},
    {"kind": "integrated", "ascent": ASCENT, "delta": "shared", "ratio": LEARNED, "labels": LINEAR, "mix_after": 2},
    {"kind": "integrated", "ascent": ASCENT, "delta": "shared", "ratio": FROZEN, "labels": GEOMETRIC, "mix_after": 0},
]
# That of the kind "none" has no weight but 0, and neither has TRADES'.
LOSSES = [
    {"divergence": "cross-entropy", "pristine_weight": 0.0},
    {"divergence": "cross-entropy", "pristine_weight": 0.5},
    {"divergence": "cross-entropy", "pristine_weight": 0.0, "trades_beta": 6.0},
    *3 * [{"divergence": "cross-entropy", "pristine_weight": 0.5}],
]
OPTIMIZERS = [
    {"kind": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 1e-4},
    {"kind": "adam", "lr": 0.1, "betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 1e-4},
    {"kind": "adamw", "lr": 0.1, "betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 1e-4},
    {"kind": "yogi", "lr": 0.1, "betas": [0.8, 0.99], "eps": 1e-2, "initial_accumulator": 1e-5, "weight_decay": 1e-4},
]
SCHEDULES = [
    {"kind": "steps", "epochs": 7, "batch_size": 64, "drops": [0.5, 0.8], "factor": 0.2},
    {"kind": "cosine", "epochs": 7, "batch_size": 64, "warmup": 0.1, "final": 0.05},
    {"kind": "one-cycle", "epochs": 7, "batch_size": 64, "peak": 0.3, "initial": 0.1, "final": 0.05},
]
AVERAGINGS = [{"kind": "none"}, {"kind": "ema", "decay": 0.9, "warmup": False}]
EVALUATORS = [
    {"kind": "pristine", "name": "plain", "split": "train", "limit": 40, "batch_size": 20},
    {"kind": "pgd", "name": "P", "steps": 20, "step_size": "2/255", "restarts": 1, "init": "uniform", "loss": "margin"}
    | _PIXELS,
    {"kind": "autoattack", "name": "A", "version": "plus"} | _PIXELS,
]


def _full(number):
    return {
        "title": "t",
        "seed": 4,
        "data": DATA[number % len(DATA)],
        "model": MODELS[number % len(MODELS)],
        "threat": {"norm": "linf", "epsilon": "8/255"},
        "maximizer": MAXIMIZERS[number % len(MAXIMIZERS)],
        "loss": LOSSES[number % len(MAXIMIZERS)],
        "optimizer": OPTIMIZERS[number % len(OPTIMIZERS)],
        "schedule": SCHEDULES[number % len(SCHEDULES)] | {"on_collapse": ("warn", "stop", "rollback")[number % 3]},
        "averaging": AVERAGINGS[number % len(AVERAGINGS)],
        "validation": {
            "on": "held-out", "fraction": 0.1, "limit": 200, "steps": 7, "step_size": "3/255", "report": "last",
        },
        "engine": {
            "precision": "bf16", "channels_last": False, "compile": "off", "deterministic": True, "threads": 2,
            "batch_norm": ("averaged", "synchronised")[number % 2],
        },
        "evaluators": EVALUATORS,
    }  # fmt: skip


FULL = [_full(number) for number in range(6)]


def leaves(value, path=()):
    """(path, value) of everything in nested dicts and lists that is neither."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        yield path, value
    else:
        for key, inner in items:
            yield from leaves(inner, (*path, key))


def put(value, path, leaf):
    """A copy of nested dicts and lists with `leaf` at `path`."""
    if not path:
        return leaf
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], leaf) if len(path) > 1 else leaf
    return copy
