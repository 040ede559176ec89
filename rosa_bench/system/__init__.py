"""Operating system services: files, locks, signals, the terminal, processes, memory and the model hub."""
