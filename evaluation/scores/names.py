"""Names that records and their tables share with the scores, for readers that need no PyTorch."""

from __future__ import annotations

CONTROLS = ("total_variation", "high_frequency_energy", "pixel_histogram_entropy")
"""Statistics of the pixels that need no network (`framegate.evaluation.scores.input` computes them)."""
