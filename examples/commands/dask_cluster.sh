#!/bin/sh
# A Dask cluster as the command of a slice: rank 0 is its scheduler, all others are workers.
# Clients reach it at tcp://$MASTER_ADDR:$MASTER_PORT, which the log of rank 0 says.
set -eu
if [ "$RANK" = 0 ]; then
    exec dask scheduler --host "$MASTER_ADDR" --port "$MASTER_PORT" --no-dashboard
fi
exec dask worker "tcp://$MASTER_ADDR:$MASTER_PORT" --name "$FLOWOS_ENGINE" --nthreads 1 \
    --no-nanny --no-dashboard --local-directory "$FLOWOS_SCRATCH"
