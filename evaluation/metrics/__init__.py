"""Metrics of selective classification, with intervals."""
