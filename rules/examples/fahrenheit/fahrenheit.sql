SELECT device, ts, round(temp * 1.8 + 32, 1) AS fahrenheit,
       CASE WHEN temp >= 30 THEN 'hot' WHEN temp < 5 THEN 'cold' ELSE 'fine' END AS class
FROM env
WHERE temp IS NOT NULL
