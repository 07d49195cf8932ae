"""Short import paths for pooling the records of several studies, and for combining their differences."""

from analysis.questions.across import differences_across as differences_across
from analysis.reading.pooling import pool_studies as pool_studies
