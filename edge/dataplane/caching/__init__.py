"""Answers from the store, and fetches for it."""
