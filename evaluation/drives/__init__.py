"""Recorded drives: as a table, mined, labelled, decided again; on one machine and on a cluster."""
