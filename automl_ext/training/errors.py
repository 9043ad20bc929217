"""The exception for wrong input by the user."""


class UserError(Exception):
    """Wrong input, described in one line. The command line prints ``error: …`` and exits with code 2."""
