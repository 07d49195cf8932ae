"""Errors of a study's tasks, the same for every executor."""


class TaskFailedError(Exception):
    """Error for a task that raised an error.

    Args:
        cause: the error.
        node: address of the node that ran the task; empty if there is only one.
    """

    def __init__(self, cause: BaseException, node: str = "") -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.node = node


class TaskLostError(Exception):
    """Error for a task that ended without a result, as with a lost node.

    Args:
        error: error of the executor.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.kind = type(error).__name__
        self.node = ""


def on_node(error: TaskFailedError | TaskLostError) -> str:
    """Return ` on node ADDRESS` for a message, or an empty text if there is only one node."""
    return f" on node {error.node}" if error.node else ""
