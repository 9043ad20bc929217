"""Tuning of the commands of ``automl-ext`` that make a run directory."""
