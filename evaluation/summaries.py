"""What the commands of this room do."""

SUMMARIES = {
    "evaluate": "measure how well a bundle's scores detect attacks, damage and foreign frames (needs PyTorch)",
    "monitor": "fit a bundle's monitor, which recognises attacks and damage inside the network (needs PyTorch)",
    "attacks": "show what attacks of many kinds make of a bundle, without and with its gate (needs PyTorch)",
    "gate": "measure what a bundle accepts under attacks, damage and foreign frames (needs PyTorch)",
}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here."""
