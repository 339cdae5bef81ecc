"""The one error that is the user's to mend."""


class UserError(ValueError):
    """A mistake in what was asked for. Command lines print the message, without a traceback, and exit with code 2."""
