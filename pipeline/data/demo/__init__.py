"""The embedded corpus: drawn talking faces with synthetic voices, known truth, no licence (docs/architecture.md)."""
