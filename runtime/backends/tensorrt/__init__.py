"""TensorRT and TensorRT-RTX: engines, and one CUDA graph a frame."""
