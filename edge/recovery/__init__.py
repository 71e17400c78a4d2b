"""Recovery points, as rules and bytes: what a point is, what it needs, how long it is kept, when the next is due."""
