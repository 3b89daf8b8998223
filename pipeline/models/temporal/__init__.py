"""What tokens of one stream tell each other over time; a file per kind, see `base`."""
