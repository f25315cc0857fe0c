"""Labelled images for calibration and checks."""
