"""The one kind of error a person can mend."""


class MnemonError(Exception):
    """One sentence or two: what is wrong, where, and what to do. The command line shows it without a traceback, and
    then its notes (`add_note`): what was kept, and how to go on."""


class WriteError(MnemonError, OSError):
    """A file could not be written: the disk is full, for example, or the folder belongs to somebody else."""
