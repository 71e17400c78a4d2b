"""This machine as one of a fleet: it follows the purge stream, and tells the others how far it is."""
