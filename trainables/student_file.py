"""Loader module named in registered MLflow models; see `trainables.students.file`."""

from trainables.students.file import Student as Student
from trainables.students.file import _load_pyfunc as _load_pyfunc
from trainables.students.file import load_student as load_student
