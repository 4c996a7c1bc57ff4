"""Freshness: what a model loses on the days after the one it was made for."""

READ = ("session_dataset", "semantic_ids", "baselines", "pretrained_checkpoint")
"""Artifacts of a nightly run that the table is made from."""
