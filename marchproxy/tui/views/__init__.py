"""One tab each. `view` has what they share: they ask only while they are looked at."""
