"""From a camera's pixels to the network's input."""
