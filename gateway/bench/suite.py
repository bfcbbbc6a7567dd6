"""Which measurements there are, by the name that --only takes."""

from gateway.bench import alerts, footprint, inside, isolation, protection, rates, sql

MEASUREMENTS = {
    "engine": inside.engine,
    "filters": inside.filters,
    "batches": inside.batches,
    "protection": protection.protection,
    "isolation": isolation.isolation,
    "direct": rates.direct,
    "broker": rates.broker,
    "sql": sql.sql,
    "alerts": alerts.alerts,
    "memory": footprint.memory,
    "start": footprint.start,
}
