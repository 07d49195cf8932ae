"""Stages of a study after the search: repeat, tune, choose and confirm."""
