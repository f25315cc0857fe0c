"""One thin layer over cuda-bindings or PyCUDA."""
