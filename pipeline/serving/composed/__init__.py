"""Features that a language model makes of whole films (Emotion-LLaMA): from raw files, or from the stores of a corpus."""
