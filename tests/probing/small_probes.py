"""Settings of a recipe whose first batch is looked at in a moment."""

OURS = 'maximizer={kind="integrated", ascent={steps=3, step_size="8/255"}}'
SMALL = ["data.train_limit=64", "schedule.batch_size=32", "model.width=2", "validation.fraction=0.05"]
