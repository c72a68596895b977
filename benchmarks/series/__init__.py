"""How cost grows: with message size, concurrency, mappings, flows, blocked prefixes. Curves, not points."""
