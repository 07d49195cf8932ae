"""A trial as a Ray Tune trainable: thin wrappers around a session independent of Ray."""
