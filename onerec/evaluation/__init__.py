"""Offline evaluation: metrics with intervals, baselines, generators, and the promotion rule."""
