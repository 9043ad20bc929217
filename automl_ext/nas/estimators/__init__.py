"""Performance estimation: estimate an architecture's score at a lower cost than full training.

See docs/how-to/estimation.md.
"""
