-- The delivery audit: what each client received against what it should have received.

-- The hash of what a cluster shows of a window: its cells, the largest counts first, each as a line of text.
CREATE TABLE expected_hashes AS
WITH ordered AS (
    SELECT c.*, row_number() OVER (PARTITION BY epoch, "window" ORDER BY "count" DESC, emoji_type) AS place FROM cells AS c
),
texts AS (
    SELECT epoch, "window",
        string_agg(emoji_type || ' ' || "count" || ' ' || representatives || chr(10), '' ORDER BY place) AS shown
    FROM ordered CROSS JOIN given
    WHERE top_n = 0 OR place <= top_n
    GROUP BY epoch, "window"
)
SELECT k.epoch, k."window", blake2b_64(coalesce(t.shown, '')) AS expected_hash
FROM known AS k
LEFT JOIN texts AS t ON t.epoch = k.epoch AND t."window" = k."window";

-- One row per delivery, in the order of receipt. `fresh`: the client's first copy of a window that was emitted.
CREATE TABLE audited AS
WITH ranked AS (SELECT *, row_number() OVER (ORDER BY trigger_ns, "window") AS place FROM known),
compared AS (
    SELECT
        d.position AS receipt, d.client_id, d.epoch, d."window", d.received_ns, k.place,
        k.epoch IS NOT NULL AS is_known,
        row_number() OVER (PARTITION BY d.client_id, d.epoch, d."window" ORDER BY d.position) > 1 AS again,
        d.received_ns - k.emitted_ns > g.late_ns AS too_late,
        d.total IS DISTINCT FROM k.total OR d.event_id IS DISTINCT FROM d.epoch || ':' || d."window"
            OR d.shown_hash IS DISTINCT FROM h.expected_hash AS differs
    FROM deliveries AS d
    CROSS JOIN given AS g
    LEFT JOIN ranked AS k ON k.epoch = d.epoch AND k."window" = d."window"
    LEFT JOIN expected_hashes AS h ON h.epoch = d.epoch AND h."window" = d."window"
),
followed AS (
    SELECT *, is_known AND NOT again AS fresh,
        max(place) FILTER (is_known AND NOT again)
            OVER (PARTITION BY client_id ORDER BY receipt ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest
    FROM compared
)
SELECT
    receipt, client_id, epoch, "window", received_ns, fresh, is_known AND again AS duplicate,
    coalesce(fresh AND place < latest, false) AS out_of_order, coalesce(fresh AND too_late, false) AS late,
    is_known AND differs AS altered, NOT is_known AS unknown
FROM followed;

CREATE TABLE faults_by_client AS
WITH owed AS (
    SELECT client_id, count(*) AS due, count(*) FILTER (received_ns IS NULL) AS missing FROM receipts GROUP BY client_id
),
got AS (
    SELECT
        client_id, count(*) FILTER (fresh) AS received, count(*) FILTER (duplicate) AS duplicate,
        count(*) FILTER (out_of_order) AS out_of_order, count(*) FILTER (late) AS late,
        count(*) FILTER (altered) AS altered, count(*) FILTER (unknown) AS unknown
    FROM audited
    GROUP BY client_id
)
SELECT c.client_id, c.cluster || '/' || c.subscriber AS subscriber, o.due, o.missing, g.* EXCLUDE client_id
FROM clients AS c
LEFT JOIN owed AS o USING (client_id)
LEFT JOIN got AS g USING (client_id);

INSERT INTO figures ("key", "value")
WITH sums AS (
    SELECT sum(due) AS due, sum(received) AS received, sum(missing) AS missing, sum(duplicate) AS duplicate,
        sum(out_of_order) AS out_of_order, sum(late) AS late, sum(altered) AS altered, sum(unknown) AS unknown
    FROM faults_by_client
)
SELECT 'deliveries_' || name, coalesce(number, 0)
FROM sums UNPIVOT INCLUDE NULLS (number FOR name IN (COLUMNS(*)));

-- The subscribers whose clients saw a fault, the most faults first.
INSERT INTO figures ("key", "text")
WITH faults AS (
    SELECT subscriber, sum(
        coalesce(missing, 0) + coalesce(duplicate, 0) + coalesce(out_of_order, 0) + coalesce(late, 0)
        + coalesce(altered, 0) + coalesce(unknown, 0)
    ) AS faults
    FROM faults_by_client
    GROUP BY subscriber
)
SELECT 'subscribers_at_fault', coalesce(string_agg(subscriber, ', ' ORDER BY faults DESC, subscriber), '')
FROM faults
WHERE faults > 0;
