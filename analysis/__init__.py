"""Analysis of recorded studies: estimates with uncertainty, figures and reports."""

from trainables.process.packages import use_own_packages

use_own_packages()
