"""How streams become one; a file per fusion, see `base`."""
