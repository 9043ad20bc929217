"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input from outside: one clear line. The command line prints ``error: …`` and exits with code 2."""
