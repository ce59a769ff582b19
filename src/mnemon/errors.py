"""The one kind of error a person can mend."""


class MnemonError(Exception):
    """One sentence or two: what is wrong, where, and what to do. The command line shows it without a traceback."""
