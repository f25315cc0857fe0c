"""What the command of this room does."""

SUMMARIES = {
    "demo": "show a camera or clip on a web page, with its verdicts and buttons for faults",
}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here."""
