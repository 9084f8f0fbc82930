"""How fast the engine is, beside the loops that the field writes: all in one run, on the same weights and images."""
