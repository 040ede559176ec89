"""Plan, schedule and run the cells of a suite, `configs/suite/NAME.yaml`."""
