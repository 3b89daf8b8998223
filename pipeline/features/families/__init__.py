"""One module per family of encoders; a module with `FAMILY` is found by the registry."""
