"""The one way a stage ends when something the user can change is wrong."""


class StageError(SystemExit):
    """Ends the process with exit status 1 and its message, one line, on standard error.

    The message says what was wrong, where, and what to do.
    """

    def __init__(self, message: object) -> None:
        super().__init__("error: " + " ".join(str(message).split()))
