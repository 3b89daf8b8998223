"""Decoding: media files to sampled frames, waveforms and facts, on the clip's own presentation time."""
