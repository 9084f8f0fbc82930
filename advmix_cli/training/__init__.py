"""One step, one loop: the methods of the paper differ only in the maximizer that the step calls."""
