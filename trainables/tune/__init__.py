"""A trial as a Ray Tune trainable: thin wrappers around a session that does not depend on Ray."""
