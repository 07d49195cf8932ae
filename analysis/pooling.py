"""Several studies as one under a short name; see `analysis.reading.pooling`."""

from analysis.reading.pooling import pool_studies as pool_studies
