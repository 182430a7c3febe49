"""A build on a Slurm cluster: submitted as a whole, run and looked after by its own jobs."""
