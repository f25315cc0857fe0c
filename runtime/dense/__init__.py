"""Dense predictions (segmentation): which pixels may be used, and whether a region of a frame has enough of them."""

from framegate.runtime.dense.pixels import DensePrediction, DenseScores, dense_scores, judge_dense, usable_pixels

__all__ = ["DensePrediction", "DenseScores", "dense_scores", "judge_dense", "usable_pixels"]
