"""The simulated A/B test: systems serve the same simulated users on the same visits."""
