"""One file per job. main.py imports the one that was chosen."""
