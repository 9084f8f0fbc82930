"""A table of experiments: its cells, and the queue that runs what is not yet done."""
