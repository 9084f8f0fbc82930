"""Networks from [0, 1] images to logits. The normalisation is the first layer, so ε is in pixel units."""
