"""Every method beside the one in use, and a verdict in words."""
