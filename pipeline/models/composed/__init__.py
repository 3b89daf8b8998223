"""A language model that reads a film as rows of its own width inside a prompt, as Emotion-LLaMA does (docs/emotion_llama.md)."""
