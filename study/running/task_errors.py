"""Errors of a study's tasks, the same for every executor."""


class TaskFailedError(Exception):
    """Raised if a task raised an error.

    Args:
        cause: the error.
        node: address of the task's node; empty on a single node.
    """

    def __init__(self, cause: BaseException, node: str = "") -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.node = node


class TaskLostError(Exception):
    """Raised if a task ended without a result, e.g. on a lost node.

    Args:
        error: the executor's error.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.kind = type(error).__name__
        self.node = ""


def on_node(error: TaskFailedError | TaskLostError) -> str:
    """Return ` on node ADDRESS` for a message, or an empty text if there is only one node."""
    return f" on node {error.node}" if error.node else ""
