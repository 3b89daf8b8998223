"""In which order clips are trained on; a file per sampler, see `base`."""
