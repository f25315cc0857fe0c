"""Thresholds, temperature, and what they promise."""
