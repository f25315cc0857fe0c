"""Classifier architectures and their training (PyTorch). Not needed at run time."""
