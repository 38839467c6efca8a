"""Claims about speed and memory, each with a script that measures it; see docs/performance.md."""
