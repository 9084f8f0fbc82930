"""What the two ranks train: the settings of each job, in the order of `worker.JOBS`."""

OURS = (
    'maximizer={kind="integrated", ascent={steps=2, step_size="8/255", batch_norm="train"}, ratio={kind="learned"}}',
    'averaging={kind="ema", decay=0.9}',
)
FOUR_BATCHES = ("schedule.epochs=3", "schedule.batch_size=32", "evaluators=[]")
PLAIN = (
    "schedule.epochs=2", "evaluators=[]", "data.translate=0", 'optimizer={kind="sgd", lr=0.05}',
    'maximizer={kind="attack", ascent={steps=1, step_size="8/255", init="zero"}}',
)  # fmt: skip
NO_ATTACK = (*PLAIN, "threat.epsilon=0.0")
SYNCHRONISED = 'engine.batch_norm="synchronised"'
SETTINGS = {
    "synchronised": (*NO_ATTACK, SYNCHRONISED, "seed=1"),
    "synchronised2": (*NO_ATTACK, SYNCHRONISED, "seed=2"),
    "averaged": NO_ATTACK,
    "attacked": (*PLAIN, SYNCHRONISED),
    "whole": (*FOUR_BATCHES, *OURS),
    "part": (*FOUR_BATCHES, *OURS),
    "part.again": (*FOUR_BATCHES, *OURS),
    "fewer": FOUR_BATCHES,
    "more": FOUR_BATCHES,
    "indivisible": ("schedule.batch_size=33",),
    "graph": ('engine.compile="graph"',),
    "compiled": (*FOUR_BATCHES, 'engine.compile="step"'),
    "rollback": (*FOUR_BATCHES, *OURS, 'schedule.on_collapse="rollback"'),
    "infinite": FOUR_BATCHES,
    "apart": FOUR_BATCHES,
    "memory": FOUR_BATCHES,
    "devices": FOUR_BATCHES,
    "patient": ("schedule.epochs=1", "schedule.batch_size=32", "evaluators=[]"),
    "silent": FOUR_BATCHES,
    "death": FOUR_BATCHES,
}
