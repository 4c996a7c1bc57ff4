"""What serves: bundles, the lists of all users, the files that consumers read, the HTTP service."""

from onerec.serving.bundle import load_bundle

__all__ = ["load_bundle"]
