"""Serving: bundles, recommendations for all users, files for consumers, the HTTP service."""
