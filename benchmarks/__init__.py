"""What the engine is worth: measured against the script that users have, `generate`, and the hardware.

`python -m benchmarks` measures and writes a JSON; `python -m benchmarks.document` makes docs/benchmarks.md
of such files. Only `job`, `planning` and `scale` need Ray.
"""
