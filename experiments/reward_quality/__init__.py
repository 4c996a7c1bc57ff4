"""The reward model against gradient boosting: AUC, pairwise order in sessions, calibration."""
