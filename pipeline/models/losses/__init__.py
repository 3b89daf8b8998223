"""What is minimised; a file per loss, see `base`."""
