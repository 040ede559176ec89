"""Files, locks, signals, processes and memory: what a run needs of the machine."""
