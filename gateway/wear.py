"""Wear: what the gateway writes a day, and how long the card lasts by that. Counted where it is written (edge/storage/log.py), in whole blocks of 4 KiB.

Not counted: what the file system writes for itself, and what the card's controller makes of it (write amplification); docs/operations.md says what to add.
"""

DAY_S = 86_400.0
SURE_S = 60.0                            # younger, a rate would say little
YEARS_MAX = 100


def wear(logs, uptime_s, endurance_bytes) -> dict:
    """Of this process. logs: name -> edge.storage.log.Log. Days and years are None while the process is younger than SURE_S."""
    written = {name: log.written_bytes for name, log in logs.items()}
    total, sure = sum(written.values()), uptime_s >= SURE_S
    day = total / uptime_s * DAY_S if sure else None
    return {
        "written_bytes": written, "syncs": sum(log.syncs for log in logs.values()),
        "written_bytes_day": round(day) if sure else None,
        "syncs_per_s": round(sum(log.syncs for log in logs.values()) / uptime_s, 2) if sure else None,
        "endurance_bytes": int(endurance_bytes),
        "life_years": round(min(YEARS_MAX, endurance_bytes / (day * 365)), 1) if day else YEARS_MAX if sure else None,
    }
