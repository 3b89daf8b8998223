"""What a clip takes from the turns before it; a file per context, see `base`."""
