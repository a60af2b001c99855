"""One module per command: each puts data, network, loop and report together, top to bottom."""
