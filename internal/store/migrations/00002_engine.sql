-- The delivery engine: a lane for each endpoint, filters and limits, two
-- secrets while one is rotated, test sends, and fewer indexes on the way of a
-- delivery. A table is made anew where a constraint changes.

-- +goose Up

-- '' in rows from before.
ALTER TABLE run ADD COLUMN branch TEXT NOT NULL DEFAULT '';
CREATE INDEX run_finished ON run (project_id, branch, finished_at) WHERE state = 'finished';

ALTER TABLE endpoint ADD COLUMN branches TEXT NOT NULL DEFAULT '[]';
ALTER TABLE endpoint ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE endpoint ADD COLUMN result TEXT NOT NULL DEFAULT 'any' CHECK (result IN ('any', 'passed', 'failed', 'flaky', 'recovered'));
ALTER TABLE endpoint ADD COLUMN max_in_flight BIGINT NOT NULL DEFAULT 16;
-- 0 is no limit.
ALTER TABLE endpoint ADD COLUMN rate_per_minute BIGINT NOT NULL DEFAULT 0;
-- Sealed, like the secret; '' is none.
ALTER TABLE endpoint ADD COLUMN previous_secret TEXT NOT NULL DEFAULT '';
ALTER TABLE endpoint ADD COLUMN previous_until BIGINT;
ALTER TABLE endpoint ADD COLUMN private_key TEXT NOT NULL DEFAULT '';

-- What the engine knows of an endpoint. Apart from the endpoint's settings,
-- which every event of its project reads under a lock.
CREATE TABLE lane (
    endpoint_id     TEXT PRIMARY KEY REFERENCES endpoint (id),
    -- The process that sends, and until when it may; '' and 0 if nobody.
    node            TEXT NOT NULL,
    lease_until     BIGINT NOT NULL,
    -- The receiver asked for quiet until then.
    hold_until      BIGINT NOT NULL,
    last_success_at BIGINT,
    last_failure_at BIGINT,
    -- The first failure after the last success.
    failing_since   BIGINT,
    -- In a row, as the engine counts them.
    failures        BIGINT NOT NULL,
    warned          BIGINT NOT NULL,
    CHECK ((node = '') = (lease_until = 0))
);
INSERT INTO lane (endpoint_id, node, lease_until, hold_until, failures, warned) SELECT id, '', 0, 0, 0, 0 FROM endpoint;

-- What happened to an endpoint, for people.
CREATE TABLE endpoint_history (
    id          TEXT PRIMARY KEY,
    endpoint_id TEXT NOT NULL REFERENCES endpoint (id),
    at          BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    text        TEXT NOT NULL
);
CREATE INDEX endpoint_history_endpoint ON endpoint_history (endpoint_id, id);

ALTER TABLE attempt RENAME TO attempt_1;
ALTER TABLE delivery RENAME TO delivery_1;
ALTER TABLE event RENAME TO event_1;

CREATE TABLE event (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    -- NULL is a test send.
    run_id     TEXT REFERENCES run (id),
    group_name TEXT NOT NULL,
    scope      TEXT NOT NULL CHECK (scope IN ('group', 'run')),
    -- Not IN: for more than two values SQLite makes a table, for each row.
    kind       TEXT NOT NULL CHECK (kind = 'RUN_START' OR kind = 'RUN_FINISH' OR kind = 'RUN_TIMEOUT' OR kind = 'RUN_CANCELED'),
    -- A group or run starts once and ends once, whatever the code believes.
    phase      TEXT NOT NULL CHECK (phase IN ('start', 'end')),
    sequence   BIGINT NOT NULL,
    payload    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CHECK ((kind = 'RUN_START') = (phase = 'start')),
    UNIQUE (run_id, scope, group_name, phase)
);
INSERT INTO event SELECT id, project_id, run_id, group_name, scope, kind, phase, sequence, payload, created_at FROM event_1;

-- The delivery table is the queue. Ids start with the time, so that rows of one
-- time lie together.
CREATE TABLE delivery (
    id          TEXT PRIMARY KEY,
    endpoint_id TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    -- '' is a test send.
    run_id      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    sequence    BIGINT NOT NULL,
    -- Not IN, as above.
    state       TEXT NOT NULL CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed'),
    attempts    BIGINT NOT NULL,
    -- Attempts that do not count for the schedule: those before it was queued
    -- again by hand.
    earlier     BIGINT NOT NULL,
    -- Later events of the run wait for this one: it has its first attempt or a
    -- quick retry ahead.
    blocks      BIGINT NOT NULL,
    -- Waits for an earlier one that blocks.
    parked      BIGINT NOT NULL,
    -- Of the next attempt.
    due_at      BIGINT,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT,
    CHECK ((state = 'pending' AND parked = 0) = (due_at IS NOT NULL)),
    CHECK (state = 'pending' OR (parked = 0 AND blocks = 0)),
    CHECK ((state = 'pending') = (finished_at IS NULL))
);
-- What was held is pending at an endpoint that is disabled. As before, nothing
-- waits for what has its quick retries behind it.
INSERT INTO delivery (id, endpoint_id, event_id, run_id, kind, sequence, state, attempts, earlier, blocks, parked, due_at, created_at, finished_at)
SELECT d.id, d.endpoint_id, d.event_id, d.run_id, d.kind, d.sequence, CASE WHEN d.state = 'held' THEN 'pending' ELSE d.state END, d.attempts, 0,
    CASE WHEN d.state IN ('pending', 'held') AND d.attempts <= 2 THEN 1 ELSE 0 END,
    CASE WHEN d.state IN ('pending', 'held') AND e.id IS NOT NULL THEN 1 ELSE 0 END,
    CASE WHEN d.state IN ('pending', 'held') AND e.id IS NULL THEN COALESCE(d.due_at, d.created_at) END,
    d.created_at, d.finished_at
FROM delivery_1 d LEFT JOIN delivery_1 e ON d.state IN ('pending', 'held') AND e.id = (SELECT MIN(x.id) FROM delivery_1 x WHERE x.run_id = d.run_id
    AND x.endpoint_id = d.endpoint_id AND x.sequence < d.sequence AND x.state IN ('pending', 'held') AND x.attempts <= 2);
DROP INDEX delivery_due;
DROP INDEX delivery_order;
DROP INDEX delivery_log;
DROP INDEX delivery_run;

CREATE INDEX delivery_due ON delivery (endpoint_id, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX delivery_parked ON delivery (endpoint_id, run_id) WHERE parked = 1;
CREATE INDEX delivery_failed ON delivery (endpoint_id, finished_at) WHERE state = 'failed';
CREATE INDEX delivery_log ON delivery (endpoint_id, created_at, id);
CREATE INDEX delivery_run ON delivery (run_id, sequence);

CREATE TABLE attempt (
    delivery_id      TEXT NOT NULL REFERENCES delivery (id),
    number           BIGINT NOT NULL,
    started_at       BIGINT NOT NULL,
    duration         BIGINT NOT NULL,
    request_headers  TEXT NOT NULL,
    class            TEXT NOT NULL,
    status           BIGINT NOT NULL,
    response_headers TEXT NOT NULL,
    response_body    TEXT NOT NULL,
    error            TEXT NOT NULL,
    PRIMARY KEY (delivery_id, number)
);
INSERT INTO attempt SELECT delivery_id, number, started_at, duration, request_headers, class, status, response_headers, response_body, error FROM attempt_1;
DROP TABLE attempt_1;
DROP TABLE delivery_1;
DROP TABLE event_1;
