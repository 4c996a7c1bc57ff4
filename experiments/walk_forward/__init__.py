"""Walk-forward: several nightly runs, each tested on the day after its window."""
