"""The cells of a table as the tasks of a SLURM job array, submitted through submitit."""
