"""The stages of a study: repeat, tune, choose, confirm."""
