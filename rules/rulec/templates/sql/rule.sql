SELECT device, window_end, count(*) AS n, avg(temp) AS temp_avg
FROM env
WHERE temp > :limit AND place <> :skip
GROUP BY device, TUMBLE(ts, INTERVAL '10' SECOND)
