"""Media decoders, kept in processes that may crash: probe, sampled frames, waveforms."""
