"""`make soak`: a month of nightly runs with scheduled incidents, verified after every run."""
