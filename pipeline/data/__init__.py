"""From a corpus folder to a manifest, and from media to decoded frames and audio."""
