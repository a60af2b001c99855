"""How large an object of the source appears in the network's input (FixRes, section 3)."""
