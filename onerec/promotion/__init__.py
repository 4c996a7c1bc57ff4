"""Promotion: which system serves after a nightly run, and the artifact that says so."""
