"""What pydantic finds wrong, for a person."""

from pydantic import ValidationError

from trainables.uris import redact


def describe_validation(error: ValidationError) -> str:
    """Pydantic's findings as one line each: the field, what is wrong, what was given."""
    lines = []
    for finding in error.errors():
        where = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        given = (
            f" (given: {redact(repr(finding['input']))})" if where and not isinstance(finding["input"], dict) else ""
        )
        lines.append(f"{where}: {message}{given}" if where else message)
    return "\n".join(lines)
