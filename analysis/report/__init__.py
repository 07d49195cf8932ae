"""A study as one self-contained HTML file: `python -m analysis.report NAME`.

`folder` reads a study's folder, `answer` says in two sentences what was found, `tables`, `charts` and `pictures` show
it, `content` decides which section there is, and `page` makes the file. Every number is worked out from the records;
the plan and the summary only say what was asked for. Nothing heavy is imported here, so that `--help` answers at once.
"""
