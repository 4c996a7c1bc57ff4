"""Experiments: comparisons outside of the nightly run, one package per question."""
