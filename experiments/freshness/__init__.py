"""Freshness: the loss of a model that is not retrained, by its age in days."""

READ = ("session_dataset", "semantic_ids", "baselines", "pretrained_checkpoint")
"""Artifacts of a nightly run that the table is made from."""
