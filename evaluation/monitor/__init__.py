"""Fitting the monitor: a small head over pooled layer means."""
