"""ONNX graphs: reading, preparing, half precision, scores."""
