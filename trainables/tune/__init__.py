"""A trial as Ray Tune runs it: thin trainables over one session that knows no Ray."""
