"""The operators of ONNX as differentiable functions of PyTorch tensors, each compared with ONNX Runtime by a test."""
