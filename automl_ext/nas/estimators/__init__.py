"""Performance estimation: scores of architectures that cost less than a full training. See docs/nas-estimation.md."""
