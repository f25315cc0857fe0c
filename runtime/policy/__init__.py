"""From scores and findings to reasons, for one frame and for a stream of them."""
