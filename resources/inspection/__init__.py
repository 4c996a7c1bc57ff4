"""Inspection of a log before anything is trained: what is read, rejected and learned from."""
