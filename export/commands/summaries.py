"""What the commands of this room do."""

SUMMARIES = {
    "export": "turn a checkpoint (needs PyTorch) or an ONNX classifier into a calibrated bundle",
    "calibrate": "set the thresholds of a bundle again, for another promise or on another machine",
    "certify": "give a bundle a certificate: what no attack within a stated budget can break",
    "verify": "compare the decisions of two engines or precisions of a bundle",
    "onnx": "write a bundle's network as one ONNX file, with scores and activations if wanted",
    "sign": "sign a bundle, so that --trust KEY accepts it and no other",
    "engine": "build a bundle's TensorRT engines for this GPU",
}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here."""
