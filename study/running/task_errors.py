"""Errors of a study's tasks, the same for every executor."""


class TaskFailedError(Exception):
    """Error for a task that raised an error.

    Args:
        cause: the error.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class TaskLostError(Exception):
    """Error for a task that ended without a result, as with a lost node.

    Args:
        error: error of the executor.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.kind = type(error).__name__
