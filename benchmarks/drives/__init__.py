"""What drives cost, and whether mining and what-if find what is known to be there."""
