"""One distillation trial: everything here runs, and is tested, without Ray."""
