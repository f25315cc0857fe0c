"""Scores of how little a prediction can be trusted."""
