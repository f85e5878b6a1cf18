-- Who should have received which window, and when each client did.

-- Until when a client is owed what is emitted: `grace` before it left. The audience of a run leaves as soon as it has
-- the last window that counts a planned reaction; a client that left after that is owed everything up to it.
CREATE TABLE stays AS
WITH last_counted AS (
    SELECT coalesce(max(k.emitted_ns), 0) AS last_ns
    FROM known AS k
    SEMI JOIN reactions AS r ON r.epoch = k.epoch AND r."window" = k."window"
)
SELECT
    c.client_id, c.cluster, c.subscriber, c.joined_ns,
    CASE
        WHEN c.left_ns IS NULL THEN 9223372036854775807
        WHEN c.left_ns >= l.last_ns THEN greatest(c.left_ns - g.grace_ns, l.last_ns)
        ELSE c.left_ns - g.grace_ns
    END AS until_ns
FROM clients AS c
CROSS JOIN given AS g
CROSS JOIN last_counted AS l;

-- One row per window and client that should have it; the stamps are null if the client never received it.
CREATE TABLE receipts AS
WITH first_delivery AS (
    SELECT * FROM deliveries
    QUALIFY row_number() OVER (PARTITION BY client_id, epoch, "window" ORDER BY position) = 1
)
SELECT
    k.epoch, k."window", s.client_id, s.cluster, s.subscriber, k.trigger_ns, k.emitted_ns, k.total,
    d.main_sent_ns, d.cluster_sent_ns, d.subscriber_sent_ns, d.received_ns
FROM known AS k
JOIN stays AS s ON s.joined_ns <= k.emitted_ns AND k.emitted_ns <= s.until_ns
LEFT JOIN first_delivery AS d ON d.client_id = s.client_id AND d.epoch = k.epoch AND d."window" = k."window";
