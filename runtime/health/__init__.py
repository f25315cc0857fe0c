"""The camera check: may a frame's pixels be used at all."""
