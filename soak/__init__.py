"""`make soak`: a month of nightly runs with a schedule of incidents, checked after every run."""
