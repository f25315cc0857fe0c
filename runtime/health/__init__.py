"""The camera check: may a frame's pixels be believed at all."""
