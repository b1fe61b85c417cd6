"""The networks: their specs, costs, class lists, and the torch modules."""
