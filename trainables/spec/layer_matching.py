"""Match a student's layers to teacher layers; imports no torch."""


def matched_layers(teacher: int, student: int, *, which: str) -> list[int]:
    """Return the matching teacher layer's index (from 0) for each student layer, in order.

    Args:
        teacher: number of teacher layers.
        student: number of student layers.
        which: `first`, `last`, or `skip`. `skip` takes the layers k, 2k, ... of k · student, counted from 1.

    Raises:
        ValueError: the teacher has too few layers, or, for `skip`, a number of layers that is not a multiple of the
            student's.
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
