"""Study state: the journal, the trials and the derived records."""
