#!/usr/bin/env bash
# Each domain's student as a job of its own, in a Slurm array between what comes before and after all of them.
#
#     bash examples/slurm.sh DATA OUTPUT        # OUTPUT on a disk that all nodes see
#
# The first job also makes the first student, and with it what all students share: the start, and the teacher cache.
set -euo pipefail

name_of() { # the domain at a place in the run's list
  python -c 'import json, sys; print(json.load(open(sys.argv[1]))["domains"][int(sys.argv[2])])' "$1/run.json" "$2"
}

case $1 in
  first)
    metakd weigh --data "$2" --output "$3" --no-baseline --keep-cache
    metakd teach --output "$3"
    metakd distill --output "$3" --domain "$(name_of "$3" 0)"
    ;;
  student) metakd distill --output "$2" --domain "$(name_of "$2" "$SLURM_ARRAY_TASK_ID")" ;;
  last) metakd run --output "$2" --resume --no-keep-cache ;;
  *)
    count=$(metakd inspect "$1" --json | python -c 'import json, sys; print(len(json.load(sys.stdin)["domains"]))')
    first=$(sbatch --parsable --cpus-per-task 8 --time 12:00:00 "$0" first "$1" "$2")
    last=$first
    if [ "$count" -gt 1 ]; then
      last=$(sbatch --parsable --cpus-per-task 4 --time 4:00:00 --dependency "afterok:$first" \
        --array "1-$((count - 1))" "$0" student "$2")
    fi
    sbatch --cpus-per-task 4 --time 4:00:00 --dependency "afterok:$last" "$0" last "$2"
    ;;
esac
