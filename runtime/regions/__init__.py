"""Regions that move: where to look on each frame, and one verdict for every object that is there."""
