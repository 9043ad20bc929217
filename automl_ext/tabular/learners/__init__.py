"""Learners of tables: settings with their search spaces, training within a deadline, and files without pickle."""
