"""Which layers of a teacher belong to which of its student; imports no torch."""


def matched_layers(teacher: int, student: int, *, which: str) -> list[int]:
    """Which of the teacher's layers, counted from 0, belong to the student's, in their order.

    Args:
        teacher: layers of it.
        student: layers of it.
        which: `first`, `last`, or `skip`: layers k, 2k, ... of k · student.

    Raises:
        ValueError: the teacher has too few layers, or, for `skip`, a number that is no multiple of the student's.
    """
    if student > teacher:
        raise ValueError(f"a student of {student} layers has more than its teacher's {teacher}: ask for fewer")
    if which == "first":
        return list(range(student))
    if which == "last":
        return list(range(teacher - student, teacher))
    if teacher % student:
        fitting = ", ".join(str(count) for count in range(1, teacher + 1) if teacher % count == 0)
        raise ValueError(
            f"a teacher's {teacher} layers have no {student} that are evenly spaced: take student_layers first or last "
            f"(--student-layers), or a student of {fitting} layers"
        )
    every = teacher // student
    return [every * (number + 1) - 1 for number in range(student)]
