"""Estimates with intervals, tests and resampling."""

from analysis.statistics.correlation import partial_rank_correlation as partial_rank_correlation
from analysis.statistics.correlation import rank_correlation as rank_correlation
from analysis.statistics.estimates import Estimate as Estimate
from analysis.statistics.estimates import mediation as mediation
from analysis.statistics.estimates import paired_difference as paired_difference
