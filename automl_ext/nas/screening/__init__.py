"""Screening: ranking many architectures by training-free scores, for the user or for a search."""
