"""Variants of a nightly run: one setting or the seed changed, the rest reused."""
