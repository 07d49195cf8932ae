"""Joint training of several trials as one pack."""
