SELECT device, window_end, last(temp) - first(temp) AS rise, max(temp) AS temp_max
FROM env
GROUP BY device, HOP(ts, INTERVAL '10' SECOND, INTERVAL '30' SECOND)
HAVING last(temp) - first(temp) > :limit
