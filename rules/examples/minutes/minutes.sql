SELECT device, window_end, avg(temp) AS temp_mean, round(percentile(temp, 0.95), 2) AS temp_p95, count(temp) AS readings
FROM env
GROUP BY device, TUMBLE(ts, :every)
HAVING count(temp) >= :least
