"""User code: found by name, kept with a study, sent to other processes and loaded under private names."""
