"""What the commands of this room do."""

SUMMARIES = {
    "train": "train a classifier on a data set and write a checkpoint (needs PyTorch)",
}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here."""
