SELECT *
FROM env
WHERE temp BETWEEN -40 AND 85 AND coalesce(firmware, '') NOT LIKE '0.%' AND temp <> 0
