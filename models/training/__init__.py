"""How a network of the registry is trained: the loop, its settings, batches, views, losses, and what it reports."""
