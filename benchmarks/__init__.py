"""Side-by-side measurements: `make bench`. Every figure is a ratio of things run together."""
