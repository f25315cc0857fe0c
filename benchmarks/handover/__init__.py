"""The hand-over under faults, for a long time, and how long it takes."""
