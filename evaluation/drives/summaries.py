"""What the command of this folder does."""

SUMMARIES = {"drives": "turn recorded drives into a table: report, frames to label, what another bundle would do"}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here."""
