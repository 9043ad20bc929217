"""What all pictures share: colors, titles, and the axis titles of metrics."""
