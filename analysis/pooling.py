"""Short import paths to pool the records from several studies, and to combine their differences."""

from analysis.questions.across import differences_across as differences_across
from analysis.reading.pooling import pool_studies as pool_studies
