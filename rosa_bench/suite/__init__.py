"""Many runs as one: plan, schedule and run the cells of `configs/suite/NAME.yaml`."""
