"""Small servers, run as `python -m rig.programs.NAME`: they print `ready` when they listen."""
