"""Figures of studies, drawn by matplotlib."""
