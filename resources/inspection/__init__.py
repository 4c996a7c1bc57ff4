"""A look at a log before anything is trained: what is read, what is rejected, what is left."""
