"""Speed and memory, each figure beside what it is compared with: `python -m benchmarks` (benchmarks/README.md)."""
