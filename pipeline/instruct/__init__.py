"""A language model taught by questions and answers about films (docs/instruct.md)."""
