-- The rows of a run, one table for each parquet file. The reader fills these tables; all other files only read them.
--
-- Times are nanoseconds since 1970 (…_ns). `position` numbers the rows in the order of the file; no file has it.

-- What the load generator planned. `phase` is 'warm-up', 'measured' or 'after'. Rows with one `request` are one array, and
-- `sent_as` is the spelling in which the emoji was sent; both columns are null in a load that has no such forms.
CREATE TABLE plan (
    seq BIGINT NOT NULL, user_id VARCHAR, emoji_type VARCHAR, t_intended_ns BIGINT NOT NULL, phase VARCHAR,
    request BIGINT, sent_as VARCHAR
);

-- What it sent, and what ingest answered (an HTTP status; 0: no answer).
CREATE TABLE sent (seq BIGINT NOT NULL, t_sent_ns BIGINT, t_answered_ns BIGINT, status BIGINT);

-- The invalid requests that were sent beside it: the status that ingest must answer, and the one that it answered.
CREATE TABLE invalid (
    "case" VARCHAR, expected BIGINT NOT NULL, t_intended_ns BIGINT, t_sent_ns BIGINT, t_answered_ns BIGINT, status BIGINT NOT NULL
);

-- What Kafka holds. A record with a null emoji_type is a probe or cannot be read: it counts nothing.
CREATE TABLE topic (
    position BIGINT, "partition" BIGINT NOT NULL, "offset" BIGINT NOT NULL, user_id VARCHAR, emoji_type VARCHAR, "timestamp" VARCHAR,
    accepted_ns BIGINT, flushed_ns BIGINT, appended_ns BIGINT
);

-- What Spark emitted, one row per micro-batch. JSON texts: `offsets` {"topic-partition": [first, last]}, `reactions`
-- [{"emoji_type", "count", "representatives"}], `carried` {"emoji_type": remainder}.
CREATE TABLE windows (
    position BIGINT, epoch VARCHAR NOT NULL, "window" BIGINT NOT NULL, trigger_ns BIGINT NOT NULL, emitted_ns BIGINT, total BIGINT,
    malformed BIGINT, offsets VARCHAR, reactions VARCHAR, carried VARCHAR
);

-- The clients that watched. A null left_ns: the client stayed to the end.
CREATE TABLE clients (client_id VARCHAR, cluster VARCHAR, subscriber VARCHAR, joined_ns BIGINT, left_ns BIGINT);

-- What each client received, in the order of receipt.
CREATE TABLE deliveries (
    position BIGINT, client_id VARCHAR, epoch VARCHAR, "window" BIGINT, event_id VARCHAR, received_ns BIGINT, main_sent_ns BIGINT,
    cluster_sent_ns BIGINT, subscriber_sent_ns BIGINT, total BIGINT, shown_hash BIGINT
);

-- What Spark reported of each micro-batch.
CREATE TABLE progress (
    position BIGINT, batch_id BIGINT, trigger_start_ns BIGINT, trigger_execution_ms DOUBLE, num_input_rows BIGINT,
    latest_offset_ms DOUBLE, add_batch_ms DOUBLE, wal_commit_ms DOUBLE, commit_ms DOUBLE
);

-- CPU seconds that each stage had used at a moment. Stage 'machine': the whole machine.
CREATE TABLE usage (t_ns BIGINT, stage VARCHAR, cpu_s DOUBLE, rss_bytes DOUBLE);

-- A timer beside the receivers: by how much it woke up late.
CREATE TABLE receivers_timer (t_ns BIGINT, late_ns BIGINT);
