"""Measurements: latency, GPU, and what each part costs. Records lie in ``results/``."""
