"""The report of a nightly run, and the pictures of all reports."""
