"""What is predicted; a file per head, see `base`."""
