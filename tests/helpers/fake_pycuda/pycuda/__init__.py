"""The part of PyCUDA that framegate calls, over the stub driver, for machines without PyCUDA.

It was written after PyCUDA 2026.1's wrap_cudadrv.cpp; with the real one installed the tests use that instead.
"""
