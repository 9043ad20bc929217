"""What an architecture is worth, for less than its full training; see docs/nas-estimation.md."""
