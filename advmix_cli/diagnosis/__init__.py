"""Whether the numbers of an evaluation can be believed: what a network with masked gradients cannot pass."""
