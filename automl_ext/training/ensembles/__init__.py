"""Ensembles: selection of members by the loss of their average."""
