"""What the command of this folder does."""

SUMMARIES = {
    "bench": "measure latency, start-up and memory on this machine",
}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here."""
