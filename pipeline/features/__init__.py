"""Frozen encoders, the clip cache, the extraction engine and the HDF5 feature store."""
