SELECT device, ts, LAG(state) AS before, state
FROM env
WHERE CHANGED(state) AND LAG(device) IS NOT NULL
