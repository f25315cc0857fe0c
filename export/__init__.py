"""From a trained checkpoint to a bundle: ONNX, quantisation, calibration, and the checks that may refuse it."""
