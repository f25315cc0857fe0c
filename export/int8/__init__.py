"""Symmetric INT8 in the form that TensorRT parses, too."""
