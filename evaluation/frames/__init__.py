"""Sets of frames, and what the network says about them."""
