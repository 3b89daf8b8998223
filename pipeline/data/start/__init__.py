"""A corpus nobody has described yet: what a folder or a table holds, and how it could be used."""
