"""What a method, a task and a configuration node are."""
