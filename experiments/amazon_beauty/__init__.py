"""Amazon Beauty by TIGER's protocol: baselines, the generator, and a dense head beside it."""

SYSTEM_NAMES = ("popularity", "itemknn", "sasrec_ce", "tiger", "onerec")
"""Partitions, each a system that is trained and measured."""
