"""Lightning modules, callbacks, checkpoints, optimizer groups and schedules."""

CHECKPOINT_SCHEMA = 1
"""Version of what our checkpoints say of themselves under `dnasm`; here, so that to read one needs no Lightning."""
