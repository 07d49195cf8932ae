"""Short import path for `analysis.reading.pooling`, which pools the records of several studies."""

from analysis.reading.pooling import pool_studies as pool_studies
