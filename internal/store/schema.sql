-- The schema of today on SQLite, with which a new file is made: all that the
-- migrations lead to, and the rows that say so. Written by a test:
-- go test ./internal/store -run MigrationsMake -update
--
-- Times are microseconds since 1970, UTC; booleans are 0 and 1; JSON is TEXT.

CREATE TABLE project (
    id                 TEXT PRIMARY KEY,
    name               TEXT NOT NULL,
    inactivity_timeout BIGINT NOT NULL,
    completion_delay   BIGINT NOT NULL,
    default_branch     TEXT NOT NULL,
    fail_fast          BIGINT NOT NULL,
    retention_days     BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    public_runs        BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX project_created ON project (created_at, id);

CREATE TABLE record_key (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES project (id),
    label      TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE,
    hint       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX record_key_project ON record_key (project_id);

CREATE TABLE api_key (
    id         TEXT PRIMARY KEY,
    label      TEXT NOT NULL,
    access     TEXT NOT NULL CHECK (access IN ('read', 'write')),
    hash       TEXT NOT NULL UNIQUE,
    hint       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT
);

CREATE TABLE run (
    id               TEXT PRIMARY KEY,
    project_id       TEXT NOT NULL REFERENCES project (id),
    ci_build_id      TEXT NOT NULL,
    rev              BIGINT NOT NULL,
    sequence         BIGINT NOT NULL,
    commit_info      TEXT NOT NULL,
    tags             TEXT NOT NULL,
    ci               TEXT NOT NULL,
    client           TEXT NOT NULL,
    fail_fast        BIGINT NOT NULL,
    completion_delay BIGINT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('running', 'finished', 'timed_out', 'canceled')),
    running_groups   BIGINT NOT NULL CHECK (running_groups >= 0),
    timed_out_groups BIGINT NOT NULL,
    explicit         BIGINT NOT NULL,
    close_at         BIGINT,
    created_at       BIGINT NOT NULL,
    finished_at      BIGINT,
    canceled_by      TEXT,
    cancel_reason    TEXT,
    branch           TEXT NOT NULL DEFAULT '',
    author           TEXT NOT NULL DEFAULT '',
    UNIQUE (project_id, ci_build_id),
    -- Terminal and finished_at are one fact, and so are the other ends.
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'canceled') = (canceled_by IS NOT NULL)),
    CHECK (state = 'running' OR (running_groups = 0 AND close_at IS NULL))
);
CREATE INDEX run_created ON run (project_id, created_at, id);
CREATE INDEX run_closing ON run (close_at) WHERE close_at IS NOT NULL;
CREATE INDEX run_finished ON run (project_id, branch, finished_at) WHERE state = 'finished';
CREATE INDEX run_branch_created ON run (project_id, branch, created_at, id);
CREATE INDEX run_author_created ON run (project_id, author, created_at, id);

CREATE TABLE run_group (
    run_id             TEXT NOT NULL REFERENCES run (id),
    name               TEXT NOT NULL,
    explicit           BIGINT NOT NULL,
    platform           TEXT NOT NULL,
    spec_hash          TEXT NOT NULL,
    specs              BIGINT NOT NULL,
    claimed            BIGINT NOT NULL,
    completed          BIGINT NOT NULL,
    announced          BIGINT NOT NULL,
    passes             BIGINT NOT NULL,
    failures           BIGINT NOT NULL,
    pending            BIGINT NOT NULL,
    skipped            BIGINT NOT NULL,
    retries            BIGINT NOT NULL,
    flaky              BIGINT NOT NULL,
    -- Grows with every change of the group or of what is below it.
    rev                BIGINT NOT NULL,
    state              TEXT NOT NULL CHECK (state IN ('running', 'finished', 'timed_out', 'canceled')),
    inactivity_timeout BIGINT NOT NULL,
    heard_at           BIGINT NOT NULL,
    -- When to look whether the group went silent. Moved only by that look, not
    -- by every request, so that the index rests; never later than the deadline.
    look_at            BIGINT,
    created_at         BIGINT NOT NULL,
    finished_at        BIGINT,
    PRIMARY KEY (run_id, name),
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'running') = (look_at IS NOT NULL)),
    CHECK (completed <= specs AND claimed <= specs)
);
CREATE INDEX run_group_look ON run_group (look_at) WHERE look_at IS NOT NULL;

CREATE TABLE machine (
    run_id      TEXT NOT NULL,
    id          TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    platform    TEXT NOT NULL,
    joined_at   BIGINT NOT NULL,
    unanswered  BIGINT NOT NULL,
    PRIMARY KEY (run_id, id),
    FOREIGN KEY (run_id, group_name) REFERENCES run_group (run_id, name)
);

CREATE TABLE instance (
    id           TEXT PRIMARY KEY,
    run_id       TEXT NOT NULL,
    group_name   TEXT NOT NULL,
    spec         TEXT NOT NULL,
    position     BIGINT NOT NULL,
    machine_id   TEXT,
    claim        BIGINT NOT NULL,
    claimed_at   BIGINT,
    announced    BIGINT NOT NULL,
    announced_at BIGINT,
    completed_at BIGINT,
    passes       BIGINT NOT NULL,
    failures     BIGINT NOT NULL,
    pending      BIGINT NOT NULL,
    skipped      BIGINT NOT NULL,
    retries      BIGINT NOT NULL,
    flaky        BIGINT NOT NULL,
    duration     BIGINT NOT NULL,
    exception    TEXT NOT NULL,
    FOREIGN KEY (run_id, group_name) REFERENCES run_group (run_id, name),
    CHECK ((machine_id IS NULL) = (claimed_at IS NULL)),
    CHECK (machine_id IS NOT NULL OR (announced_at IS NULL AND completed_at IS NULL))
);
CREATE UNIQUE INDEX instance_position ON instance (run_id, group_name, position);
CREATE INDEX instance_unclaimed ON instance (run_id, group_name, position) WHERE machine_id IS NULL;

CREATE TABLE announcement (
    instance_id TEXT PRIMARY KEY REFERENCES instance (id),
    document    TEXT NOT NULL
);

CREATE TABLE outcome (
    instance_id TEXT PRIMARY KEY REFERENCES instance (id),
    document    TEXT NOT NULL
);

CREATE TABLE console_output (
    instance_id TEXT PRIMARY KEY REFERENCES instance (id),
    text        TEXT NOT NULL
);

CREATE TABLE endpoint (
    id              TEXT PRIMARY KEY,
    project_id      TEXT NOT NULL REFERENCES project (id),
    url             TEXT NOT NULL,
    headers         TEXT NOT NULL,
    events          TEXT NOT NULL,
    label           TEXT NOT NULL,
    scope           TEXT NOT NULL CHECK (scope IN ('group', 'run')),
    enabled         BIGINT NOT NULL,
    disabled_reason TEXT NOT NULL,
    secret          TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    branches        TEXT NOT NULL DEFAULT '[]',
    tags            TEXT NOT NULL DEFAULT '[]',
    result          TEXT NOT NULL DEFAULT 'any' CHECK (result IN ('any', 'passed', 'failed', 'flaky', 'recovered')),
    max_in_flight   BIGINT NOT NULL DEFAULT 16,
    rate_per_minute BIGINT NOT NULL DEFAULT 0,
    previous_secret TEXT NOT NULL DEFAULT '',
    previous_until  BIGINT,
    private_key     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX endpoint_project ON endpoint (project_id, created_at);

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

CREATE TABLE endpoint_history (
    id          TEXT PRIMARY KEY,
    endpoint_id TEXT NOT NULL REFERENCES endpoint (id),
    at          BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    text        TEXT NOT NULL
);
CREATE INDEX endpoint_history_endpoint ON endpoint_history (endpoint_id, id);

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

CREATE TABLE account (
    id         TEXT PRIMARY KEY,
    email      TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    -- argon2id; '' for who proves in another way who they are.
    password   TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at    BIGINT
);

CREATE TABLE session (
    hash       TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES account (id),
    created_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);
CREATE INDEX session_account ON session (account_id);

CREATE TABLE invitation (
    id         TEXT PRIMARY KEY,
    hash       TEXT NOT NULL UNIQUE,
    email      TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE goose_db_version (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    version_id INTEGER NOT NULL,
    is_applied INTEGER NOT NULL,
    tstamp     TIMESTAMP DEFAULT (datetime('now'))
);
INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1), (2, 1), (4, 1), (5, 1), (6, 1), (7, 1);
