"""`make bench`: side-by-side measurements; figures are ratios of runs that alternate."""
