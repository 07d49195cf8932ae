"""The teacher's adapter under a short name; see `trainables.steps.adapter`."""

from trainables.steps.adapter import TeacherAdapter as TeacherAdapter
