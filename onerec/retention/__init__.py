"""What is deleted from the artifacts of a state: old versions, erased users."""
