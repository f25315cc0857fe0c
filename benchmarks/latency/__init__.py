"""``framegate bench``, and the race against what one would write instead."""
