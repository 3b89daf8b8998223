"""Faces: detect, follow through the clip, choose one, crop it square → `data/faces.h5`."""
