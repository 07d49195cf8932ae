"""Study stages after the search: repeat, tune, choose and confirm."""
