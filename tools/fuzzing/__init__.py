"""Random bad input for the ops, the command line, run directories and data files; see ``tools/fuzz.py``."""
