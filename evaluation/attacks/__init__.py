"""Attacks on the network and on the gate, and the checks of their own health."""
