"""Which clips count how much, epoch by epoch; a file per curriculum, see `base`."""
