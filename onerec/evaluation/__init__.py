"""Offline evaluation: metrics with intervals, baselines, generators, and ten users to read."""
