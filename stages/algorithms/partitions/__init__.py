"""Clusters by any method, what they score at every k, and what chooses k."""
