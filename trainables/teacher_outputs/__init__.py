"""The frozen teacher's outputs, live or stored, behind one protocol."""
