"""Which measurements there are, by the name that --only takes."""

from gateway.bench import inside

MEASUREMENTS = {
    "engine": inside.engine,
    "filters": inside.filters,
    "batches": inside.batches,
}
