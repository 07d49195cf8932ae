"""What a study found: typed views of its records, estimates with their uncertainty, and figures.

It reads the records that a study wrote and nothing else: no trial can be run, and none changed, from here.
"""
