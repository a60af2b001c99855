"""DALI: one graph for every plan, its inputs, and decoding. DALI is imported here alone."""
