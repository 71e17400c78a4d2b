"""One process of the data plane: its listeners, its timer, its agent."""
