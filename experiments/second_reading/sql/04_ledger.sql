-- The ledger: where in Kafka each planned reaction is, and which window counted it.

-- Each window once. A micro-batch that Spark repeats emits its window again, and only the first copy is forwarded.
CREATE TABLE known AS
SELECT * FROM windows
QUALIFY row_number() OVER (PARTITION BY epoch, "window" ORDER BY position) = 1;

-- One row per window and emoji type: what Spark counted.
CREATE TABLE cells AS
SELECT epoch, "window", unnest(
    from_json(reactions, '[{"emoji_type": "VARCHAR", "count": "BIGINT", "representatives": "BIGINT"}]'),
    recursive := true
)
FROM known;

-- One row per window and partition: the offsets that the window read, both ends included. An empty range has none.
CREATE TABLE ranges AS
WITH entries AS (
    SELECT epoch, "window", position, unnest(map_entries(from_json(offsets, '"MAP(VARCHAR, BIGINT[])"'))) AS entry
    FROM known
)
SELECT
    epoch, "window", position,
    regexp_extract(entry.key, '-([0-9]+)$', 1)::BIGINT AS "partition",
    entry.value[1] AS first_offset,
    entry.value[2] AS last_offset
FROM entries
WHERE entry.value[2] >= entry.value[1];

-- One row per record of the topic: how many windows cover it (one, if all is right), and the first of them.
CREATE TABLE placed AS
WITH covered AS (
    SELECT
        t.position, count(r.position) AS covers,
        min_by({'epoch': r.epoch, 'window': r."window"}, r.position) AS owner
    FROM topic AS t
    LEFT JOIN ranges AS r ON r."partition" = t."partition" AND t."offset" BETWEEN r.first_offset AND r.last_offset
    GROUP BY t.position
)
SELECT t.*, c.covers, c.owner.epoch AS epoch, c.owner."window" AS "window"
FROM topic AS t
JOIN covered AS c USING (position);

-- One row per record that counts: the reaction of the plan that it is (null: not of this plan). A user's name and the
-- moment of the intended send, to the microsecond, identify a reaction.
CREATE TABLE identified AS
SELECT r.*, p.seq
FROM placed AS r
LEFT JOIN plan AS p
    ON p.user_id = r.user_id AND p.t_intended_ns // 1000 = epoch_us(try_cast(r."timestamp" AS TIMESTAMPTZ))
WHERE r.emoji_type IS NOT NULL;

-- One row per planned reaction. If it is in Kafka more than once, the place is the one where it was counted first.
CREATE TABLE reactions AS
WITH places AS (
    SELECT * FROM identified
    WHERE seq IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY seq ORDER BY covers = 0, appended_ns, "offset") = 1
)
SELECT
    p.seq, p.user_id, p.emoji_type, p.t_intended_ns, p.phase, s.t_sent_ns, s.t_answered_ns, s.status,
    coalesce(s.status = 202, false) AS accepted,
    k."partition", k."offset", k.accepted_ns, k.flushed_ns, k.appended_ns, k.epoch, k."window"
FROM plan AS p
LEFT JOIN sent AS s USING (seq)
LEFT JOIN places AS k USING (seq);
