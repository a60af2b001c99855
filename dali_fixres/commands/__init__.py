"""One module per command: each puts index, plan, graph, network and loop together, top to bottom."""
