"""Runs: answer a data set or resume it, answer error rows again, nightly runs, data sets from runs,
submission."""
