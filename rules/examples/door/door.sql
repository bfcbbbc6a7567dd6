SELECT device, ts
FROM env
WHERE kind = 'door' AND ts - LAG(ts) FILTER (WHERE kind = 'motion') <= :within
