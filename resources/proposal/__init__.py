"""`make init`: a YAML file for one's own data, proposed from the files' columns and values."""
