"""Softmax, entropy, margin and energy of logits in one pass."""
