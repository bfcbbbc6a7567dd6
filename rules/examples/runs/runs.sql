SELECT device, window_start AS started, window_end, CAST(max(ts) - min(ts) AS BIGINT) / 1e9 AS seconds, max(watts) AS peak, count(*) AS readings
FROM env
WHERE watts > 5
GROUP BY device, SESSION(ts, INTERVAL '1' MINUTE)
