"""Programs that show curves, on request (`run.track`): a file each, found by name."""
