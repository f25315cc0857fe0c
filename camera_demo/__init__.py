"""The live demo: a camera or a clip, a web page with the verdicts, faults on a button.

A thin layer: it shows what a `framegate.runtime.Pipeline` publishes and decides nothing. Nothing of the runtime needs
it.
"""
