"""State of a running or finished study: the journal, the trials and the records derived from them."""
