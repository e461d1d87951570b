-- Everything of the first version. Times are microseconds since 1970, UTC;
-- booleans are 0 and 1; JSON is TEXT. The same text runs on both databases.

-- +goose Up
CREATE TABLE project (
    id                 TEXT PRIMARY KEY,
    name               TEXT NOT NULL,
    inactivity_timeout BIGINT NOT NULL,
    completion_delay   BIGINT NOT NULL,
    default_branch     TEXT NOT NULL,
    fail_fast          BIGINT NOT NULL,
    retention_days     BIGINT NOT NULL,
    created_at         BIGINT NOT NULL
);
CREATE INDEX project_created ON project (created_at, id);

CREATE TABLE record_key (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES project (id),
    label      TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE,
    hint       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX record_key_project ON record_key (project_id);

CREATE TABLE api_key (
    id         TEXT PRIMARY KEY,
    label      TEXT NOT NULL,
    access     TEXT NOT NULL CHECK (access IN ('read', 'write')),
    hash       TEXT NOT NULL UNIQUE,
    hint       TEXT NOT NULL,
    created_at BIGINT NOT NULL
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
    UNIQUE (project_id, ci_build_id),
    -- Terminal and finished_at are one fact, and so are the other ends.
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'canceled') = (canceled_by IS NOT NULL)),
    CHECK (state = 'running' OR (running_groups = 0 AND close_at IS NULL))
);
CREATE INDEX run_created ON run (project_id, created_at, id);
CREATE INDEX run_closing ON run (close_at) WHERE close_at IS NOT NULL;

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
    claims      BIGINT NOT NULL,
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

-- What the client said of a spec, as documents: they are read whole, and only
-- by people who look at one run.
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
    updated_at      BIGINT NOT NULL
);
CREATE INDEX endpoint_project ON endpoint (project_id, created_at);

CREATE TABLE event (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    run_id     TEXT NOT NULL REFERENCES run (id),
    group_name TEXT NOT NULL,
    scope      TEXT NOT NULL CHECK (scope IN ('group', 'run')),
    kind       TEXT NOT NULL CHECK (kind IN ('RUN_START', 'RUN_FINISH', 'RUN_TIMEOUT', 'RUN_CANCELED')),
    -- A group or run starts once and ends once, whatever the code believes.
    phase      TEXT NOT NULL CHECK (phase IN ('start', 'end')),
    sequence   BIGINT NOT NULL,
    payload    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CHECK ((kind = 'RUN_START') = (phase = 'start')),
    UNIQUE (run_id, scope, group_name, phase),
    UNIQUE (run_id, sequence)
);

-- The delivery table is the queue.
CREATE TABLE delivery (
    id          TEXT PRIMARY KEY,
    endpoint_id TEXT NOT NULL,
    event_id    TEXT NOT NULL REFERENCES event (id),
    run_id      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    sequence    BIGINT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'held')),
    attempts    BIGINT NOT NULL,
    -- When the row may be claimed. A claim moves it to the end of its lease, so
    -- that a row whose sender died becomes due again by itself.
    due_at      BIGINT,
    -- Who holds the lease, '' if nobody.
    node        TEXT NOT NULL,
    -- Waits for an earlier event of the run at this endpoint; due_at is when it
    -- overtakes.
    parked      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT,
    UNIQUE (endpoint_id, event_id),
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK ((state IN ('delivered', 'failed')) = (finished_at IS NOT NULL))
);
CREATE INDEX delivery_due ON delivery (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX delivery_order ON delivery (endpoint_id, run_id, sequence) WHERE due_at IS NOT NULL;
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
