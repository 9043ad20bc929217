"""Shared by all pictures: colors, titles, and the axis titles of metrics."""
