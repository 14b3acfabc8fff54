"""What `peers.py` runs: each system in a file, for the interpreter that has it; and how its processes are measured."""
