"""The version of what is computed: the same for all code that gives the same answers to the same run."""

VALUES_VERSION = 2
"""Part of each run's fingerprint. Bump it with any change after which a run may get other prompts or other
answers than before; `tests/unit/engine/test_golden_answers.py` fails where that was forgotten. 1 is flexray
0.1, whose records do not name it."""
