"""What is drawn, and from which points."""
