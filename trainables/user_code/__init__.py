"""Code of the user: found by name, kept with a study, sent to other processes and loaded under private names.

`canonical_name("net.py:make")` reads the sources without running them, and returns a name for configs and plans, such
as `net.py:make@0123456789abcdef`. `load_callable(name)` runs them in any process that knows them: the one that read
them, one that opened the study (`remember_saved`), and one to which they were sent (`remember_json`). A study sends the
sources of all names in the plan to all tasks and trials (`study.plan.user_code`). `describe(error)` formats an error
with the user's lines alone.
"""
