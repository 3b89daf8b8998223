"""A page on this machine that judges films, and what camera and microphone see and hear."""
