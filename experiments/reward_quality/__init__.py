"""The reward model against gradient boosting: AUC, order within a session, calibration."""
