"""Report of a study as one self-contained HTML file: `python -m analysis.report NAME`."""
