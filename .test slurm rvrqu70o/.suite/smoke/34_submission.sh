#!/bin/bash

# Parameters
#SBATCH --error='/work/h/cards20/.test slurm rvrqu70o/.suite/smoke/%j_0_log.err'
#SBATCH --job-name=rosa_bench-smoke
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output='/work/h/cards20/.test slurm rvrqu70o/.suite/smoke/%j_0_log.out'
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=10080
#SBATCH --wckey=submitit

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/work/h/cards20/.test slurm rvrqu70o/.suite/smoke/%j_%t_log.out' --error '/work/h/cards20/.test slurm rvrqu70o/.suite/smoke/%j_%t_log.err' /work/h/cards20/.venv/bin/python -u -m submitit.core._submit '/work/h/cards20/.test slurm rvrqu70o/.suite/smoke'
