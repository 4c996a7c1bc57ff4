"""What serves: bundles, the lists of all users, the files that consumers read, the HTTP service."""
