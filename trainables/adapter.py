"""Short import path of the teacher adapter; see `trainables.steps.adapter`."""

from trainables.steps.adapter import TeacherAdapter as TeacherAdapter
