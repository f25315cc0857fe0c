"""Faults on demand (``--inject``), to see what the verdicts do. Loaded only when one is asked for."""
