"""Volumes: the local driver, and who uses which."""
