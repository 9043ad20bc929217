"""Ensembles: selection of members by what their average loses."""
