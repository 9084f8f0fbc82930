"""The paper: "Adversarially Optimized Mixup for Robust Classification" (arXiv 2103.11589), as pure tensor code.

How each algorithm falls out of the parts:

    Algorithm 1   Attack                  ascend over δ
    Algorithm 2   MixThenAttack           Attack(*mix(x, y))
    Algorithm 3   AttackThenMix           mix(*Attack(x, y))
    Algorithm 4   Integrated              ascend over δ *through* the mixture
      shared/independent δ                the shape of δ: (B, ...) or (2B, ...)
    Algorithm 5   labels.geometric        which function gives λ_y
    Algorithm 6   ratio                   γ is among the variables of the ascent

Symbols, everywhere below: B images in a batch, C channels, H x W pixels, K classes; x (B, C, H, W) in [0, 1]; y (B, K)
rows that sum to one; δ the perturbation, |δ| <= ε; λ the mixing ratio, (B,) or (1,); γ its logit; κ its lower bound.
The network maps [0, 1] images to logits (B, K).
"""
