"""Entropy of a layer's activations."""
