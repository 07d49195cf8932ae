"""Outputs of the frozen teacher, live or stored, behind one protocol."""
