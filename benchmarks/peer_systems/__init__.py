"""What `peers.py` runs: each system in a file, started in the interpreter that has it; and how its processes are measured."""
