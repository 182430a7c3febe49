"""What `stackbuild status` knows of a run: how far and how fast it is, what failed, what Slurm says of it."""
