"""Study figures, drawn with matplotlib."""
