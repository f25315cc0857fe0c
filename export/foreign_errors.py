"""What an exception of another library says, in one line."""

from __future__ import annotations

_LONGEST = 200


def first_line(error: Exception) -> str:
    """The first line of its message without ONNX Runtime's codes, cut off after 200 characters; else its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[0].rpartition(" : ")[2] if lines[0].startswith("[ONNXRuntimeError]") else lines[0]
    return line[:_LONGEST]
