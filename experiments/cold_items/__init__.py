"""Items that no model has seen: a seeded share leaves the training days of a nightly run."""

READ = ("session_dataset", "semantic_ids", "pretrained_checkpoint", "offline_metrics")
"""Artifacts of the nightly run that the experiment reads, beside the settings of all stages."""
