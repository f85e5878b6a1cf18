-- What no figure can be made of. The reader refuses the run if this table has a row.

CREATE TABLE unreadable AS
WITH named AS (SELECT *, 'window ' || epoch || ':' || "window" AS name FROM windows)
SELECT 'windows' AS frame, name || ' has offsets ' || coalesce(offsets, 'null')
    || ', expected JSON like {"emoji-events-0": [first, last]}' AS fault
FROM named
WHERE TRY(list_bool_and(list_transform(
    map_entries(from_json(offsets, '"MAP(VARCHAR, BIGINT[])"')),
    lambda entry: regexp_matches(entry.key, '-[0-9]+$') AND len(entry.value) = 2
))) IS NOT DISTINCT FROM false OR TRY(from_json(offsets, '"MAP(VARCHAR, BIGINT[])"')) IS NULL
UNION ALL
SELECT 'windows', name || ' has reactions ' || coalesce(reactions, 'null')
    || ', expected a JSON list of {"emoji_type", "count", "representatives"}'
FROM named
WHERE TRY(list_bool_and(list_transform(
    from_json(reactions, '[{"emoji_type": "VARCHAR", "count": "BIGINT", "representatives": "BIGINT"}]'),
    lambda cell: cell.emoji_type IS NOT NULL AND cell."count" IS NOT NULL AND cell.representatives IS NOT NULL
))) IS NOT DISTINCT FROM false OR TRY(from_json(reactions, '[{"emoji_type": "VARCHAR"}]')) IS NULL
UNION ALL
SELECT 'windows', name || ' has carried ' || coalesce(carried, 'null') || ', expected JSON like {"😂": 7}, or {}'
FROM named
WHERE TRY(from_json(carried, '"MAP(VARCHAR, BIGINT)"')) IS NULL
UNION ALL
SELECT 'plan', 'seq ' || max(seq) || ' is in the same microsecond as another reaction of ' || user_id
FROM plan
GROUP BY user_id, t_intended_ns // 1000
HAVING count(*) > 1
UNION ALL
SELECT 'plan', 'seq ' || seq || ' is there twice' FROM plan GROUP BY seq HAVING count(*) > 1
UNION ALL
SELECT 'sent', 'seq ' || seq || ' is there twice' FROM sent GROUP BY seq HAVING count(*) > 1;
