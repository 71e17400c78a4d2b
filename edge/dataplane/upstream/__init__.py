"""Attempts at backends: selection, connections, hedges."""
