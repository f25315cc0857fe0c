"""Attacks, corruptions, scores and selective metrics: what a bundle's verdicts are worth. Not needed at run time."""
