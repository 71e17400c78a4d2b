"""A fleet of machines behind one server: what they store for one another, and the purges that all of them apply."""
