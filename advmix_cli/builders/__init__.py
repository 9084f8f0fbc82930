"""The parts that a recipe names, and what they are made into: what sees both sides, and is called through `build`."""
