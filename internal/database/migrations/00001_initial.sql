-- The whole schema. The same text runs on SQLite and on PostgreSQL.
--
-- Times are microseconds since 1970, UTC; booleans are 0 and 1; JSON is TEXT.
-- Constraints have names, so that a later migration can change them.

-- +goose Up

-- What all processes on this database share: one row.
CREATE TABLE server (
    id        BIGINT NOT NULL CONSTRAINT server_pkey PRIMARY KEY CONSTRAINT server_id_check CHECK (id = 1),
    -- Sealed with the secret key that belongs to this database; '' before the first start.
    key_check TEXT NOT NULL,
    -- When somebody last tried whether the database takes writes.
    probed_at BIGINT NOT NULL
);
INSERT INTO server (id, key_check, probed_at) VALUES (1, '', 0);

CREATE TABLE project (
    id                 TEXT NOT NULL CONSTRAINT project_pkey PRIMARY KEY,
    name               TEXT NOT NULL,
    inactivity_timeout BIGINT NOT NULL,
    completion_delay   BIGINT NOT NULL,
    default_branch     TEXT NOT NULL,
    fail_fast          BIGINT NOT NULL,
    -- For how many days what is kept; 0 is for ever.
    retention_days     BIGINT NOT NULL, -- deliveries
    run_days           BIGINT NOT NULL,
    artifacts_failed_days BIGINT NOT NULL,
    artifacts_passed_days BIGINT NOT NULL,
    output_days        BIGINT NOT NULL,
    -- Artifacts beyond this many bytes are removed, oldest first; 0 is no limit.
    artifacts_max_bytes BIGINT NOT NULL,
    public_runs        BIGINT NOT NULL DEFAULT 0,
    created_at         BIGINT NOT NULL
);
CREATE INDEX project_created ON project (created_at, id);

CREATE TABLE record_key (
    id         TEXT NOT NULL CONSTRAINT record_key_pkey PRIMARY KEY,
    project_id TEXT NOT NULL CONSTRAINT record_key_project_fkey REFERENCES project (id),
    label      TEXT NOT NULL,
    hash       TEXT NOT NULL CONSTRAINT record_key_hash_key UNIQUE,
    hint       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX record_key_project ON record_key (project_id);

CREATE TABLE api_key (
    id         TEXT NOT NULL CONSTRAINT api_key_pkey PRIMARY KEY,
    label      TEXT NOT NULL,
    access     TEXT NOT NULL CONSTRAINT api_key_access_check CHECK (access IN ('read', 'write')),
    -- The project that it is good for; NULL is all of them.
    project_id TEXT CONSTRAINT api_key_project_fkey REFERENCES project (id),
    hash       TEXT NOT NULL CONSTRAINT api_key_hash_key UNIQUE,
    hint       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX api_key_project ON api_key (project_id) WHERE project_id IS NOT NULL;

-- Requests of the REST API with an Idempotency-Key.
CREATE TABLE once (
    -- Without a reference: it outlives its key by a day at most.
    api_key_id TEXT NOT NULL,
    key        TEXT NOT NULL,
    -- A hash of the request, to tell it from others.
    request    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Sealed, because it may hold a secret; NULL until the request was answered.
    answer     TEXT,
    CONSTRAINT once_pkey PRIMARY KEY (api_key_id, key)
);
CREATE INDEX once_key_created ON once (api_key_id, created_at);
CREATE INDEX once_created ON once (created_at);

CREATE TABLE run (
    id               TEXT NOT NULL CONSTRAINT run_pkey PRIMARY KEY,
    project_id       TEXT NOT NULL CONSTRAINT run_project_fkey REFERENCES project (id),
    ci_build_id      TEXT NOT NULL,
    rev              BIGINT NOT NULL,
    sequence         BIGINT NOT NULL,
    commit_info      TEXT NOT NULL,
    -- From commit_info, to find runs by.
    branch           TEXT NOT NULL DEFAULT '',
    author           TEXT NOT NULL DEFAULT '',
    -- The number of the pull request, 0 if there is none.
    pull_request     BIGINT NOT NULL DEFAULT 0,
    tags             TEXT NOT NULL,
    ci               TEXT NOT NULL,
    client           TEXT NOT NULL,
    fail_fast        BIGINT NOT NULL,
    completion_delay BIGINT NOT NULL,
    state            TEXT NOT NULL CONSTRAINT run_state_check CHECK (state IN ('running', 'finished', 'timed_out', 'canceled')),
    running_groups   BIGINT NOT NULL CONSTRAINT run_running_groups_check CHECK (running_groups >= 0),
    timed_out_groups BIGINT NOT NULL,
    explicit         BIGINT NOT NULL,
    close_at         BIGINT,
    created_at       BIGINT NOT NULL,
    finished_at      BIGINT,
    canceled_by      TEXT,
    cancel_reason    TEXT,
    -- A pinned run keeps its details, artifacts and console output.
    pinned_at        BIGINT,
    pinned_by        TEXT NOT NULL DEFAULT '',
    -- How many of its artifacts have a file, and their bytes: the sums of table artifact.
    artifacts        BIGINT NOT NULL DEFAULT 0,
    artifact_bytes   BIGINT NOT NULL DEFAULT 0,
    has_output       BIGINT NOT NULL DEFAULT 0,
    -- When retention removed some of them.
    artifacts_removed_at BIGINT,
    output_removed_at BIGINT,
    CONSTRAINT run_build_key UNIQUE (project_id, ci_build_id),
    -- A run is over exactly if it has a time at which it ended.
    CONSTRAINT run_finished_check CHECK ((state = 'running') = (finished_at IS NULL)),
    CONSTRAINT run_canceled_check CHECK ((state = 'canceled') = (canceled_by IS NOT NULL)),
    CONSTRAINT run_over_check CHECK (state = 'running' OR (running_groups = 0 AND close_at IS NULL))
);
CREATE INDEX run_created ON run (project_id, created_at, id);
CREATE INDEX run_closing ON run (close_at) WHERE close_at IS NOT NULL;
CREATE INDEX run_finished ON run (project_id, branch, finished_at, id) WHERE state = 'finished';
CREATE INDEX run_branch_created ON run (project_id, branch, created_at, id);
CREATE INDEX run_author_created ON run (project_id, author, created_at, id);
CREATE INDEX run_pull_request ON run (project_id, pull_request, created_at, id) WHERE pull_request > 0;
-- What retention looks for.
CREATE INDEX run_artifacts ON run (project_id, finished_at, id) WHERE artifacts > 0;
CREATE INDEX run_output ON run (project_id, finished_at, id) WHERE has_output = 1;
CREATE INDEX run_pinned ON run (project_id, created_at, id) WHERE pinned_at IS NOT NULL;

-- Runs that were removed, while rows of their specs remain. The rows of run,
-- run_group, run_warning, history_part and event go first, so that nothing finds the rest;
-- therefore instance, machine and artifact have no reference to them.
CREATE TABLE removal (
    run_id     TEXT NOT NULL CONSTRAINT removal_pkey PRIMARY KEY,
    project_id TEXT NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX removal_at ON removal (at, run_id);

-- What retention last removed of a project.
CREATE TABLE sweep (
    project_id     TEXT NOT NULL CONSTRAINT sweep_pkey PRIMARY KEY CONSTRAINT sweep_project_fkey REFERENCES project (id),
    at             BIGINT NOT NULL,
    runs           BIGINT NOT NULL,
    artifacts      BIGINT NOT NULL,
    artifact_bytes BIGINT NOT NULL,
    outputs        BIGINT NOT NULL,
    deliveries     BIGINT NOT NULL
);

CREATE TABLE run_group (
    run_id             TEXT NOT NULL CONSTRAINT run_group_run_fkey REFERENCES run (id),
    name               TEXT NOT NULL,
    explicit           BIGINT NOT NULL,
    parallel           BIGINT NOT NULL,
    platform           TEXT NOT NULL,
    spec_hash          TEXT NOT NULL,
    specs              BIGINT NOT NULL,
    claimed            BIGINT NOT NULL,
    -- Claims that a reset took back.
    taken_back         BIGINT NOT NULL DEFAULT 0,
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
    state              TEXT NOT NULL CONSTRAINT run_group_state_check CHECK (state IN ('running', 'finished', 'timed_out', 'canceled')),
    inactivity_timeout BIGINT NOT NULL,
    heard_at           BIGINT NOT NULL,
    -- When to check whether the group has gone silent. Only that check moves it,
    -- not every request, so that the index stays as it is. Never later than the
    -- deadline.
    look_at            BIGINT,
    created_at         BIGINT NOT NULL,
    finished_at        BIGINT,
    CONSTRAINT run_group_pkey PRIMARY KEY (run_id, name),
    CONSTRAINT run_group_finished_check CHECK ((state = 'running') = (finished_at IS NULL)),
    CONSTRAINT run_group_look_check CHECK ((state = 'running') = (look_at IS NOT NULL)),
    CONSTRAINT run_group_specs_check CHECK (completed <= specs AND claimed <= specs)
);
CREATE INDEX run_group_look ON run_group (look_at) WHERE look_at IS NOT NULL;

-- What of the reports of a run had to be mended, and in what its machines
-- disagree: for people.
CREATE TABLE run_warning (
    run_id  TEXT NOT NULL CONSTRAINT run_warning_run_fkey REFERENCES run (id),
    number  BIGINT NOT NULL,
    code    TEXT NOT NULL,
    message TEXT NOT NULL,
    at      BIGINT NOT NULL,
    CONSTRAINT run_warning_pkey PRIMARY KEY (run_id, number)
);

CREATE TABLE machine (
    run_id      TEXT NOT NULL,
    id          TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    platform    TEXT NOT NULL,
    joined_at   BIGINT NOT NULL,
    unanswered  BIGINT NOT NULL,
    CONSTRAINT machine_pkey PRIMARY KEY (run_id, id)
);

CREATE TABLE instance (
    id           TEXT NOT NULL CONSTRAINT instance_pkey PRIMARY KEY,
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
    -- Its results are not in history_part yet, or have changed since.
    history_due  BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT instance_claimed_check CHECK ((machine_id IS NULL) = (claimed_at IS NULL)),
    CONSTRAINT instance_reported_check CHECK (machine_id IS NOT NULL OR (announced_at IS NULL AND completed_at IS NULL))
);
CREATE UNIQUE INDEX instance_position ON instance (run_id, group_name, position);
CREATE INDEX instance_failed ON instance (run_id, group_name, position) WHERE failures > 0;
CREATE INDEX instance_unclaimed ON instance (run_id, group_name, position) WHERE machine_id IS NULL;
CREATE INDEX instance_history ON instance (completed_at, id) WHERE history_due = 1;

CREATE TABLE announcement (
    instance_id TEXT NOT NULL CONSTRAINT announcement_pkey PRIMARY KEY CONSTRAINT announcement_instance_fkey REFERENCES instance (id),
    document    TEXT NOT NULL
);

CREATE TABLE outcome (
    instance_id TEXT NOT NULL CONSTRAINT outcome_pkey PRIMARY KEY CONSTRAINT outcome_instance_fkey REFERENCES instance (id),
    document    TEXT NOT NULL
);

-- The last numbers that a project has given to its specs, tests and errors.
CREATE TABLE history (
    project_id    TEXT NOT NULL CONSTRAINT history_pkey PRIMARY KEY CONSTRAINT history_project_fkey REFERENCES project (id),
    -- Numbers that a process found before then may be gone.
    numbers_since BIGINT NOT NULL,
    specs         BIGINT NOT NULL,
    tests         BIGINT NOT NULL,
    errors        BIGINT NOT NULL,
    -- When unused names were last looked for; NULL before the first time.
    swept_at      BIGINT,
    -- The branch that test_status is about, '' for all of them; NULL before the first look.
    status_branch TEXT
);

-- Tests of a project that are not healthy, as of the last look.
CREATE TABLE test_status (
    project_id TEXT NOT NULL CONSTRAINT test_status_project_fkey REFERENCES project (id),
    -- Its number in history_name.
    test       BIGINT NOT NULL,
    health     TEXT NOT NULL CONSTRAINT test_status_health_check CHECK (health IN ('flaky', 'broken')),
    CONSTRAINT test_status_pkey PRIMARY KEY (project_id, test)
);

-- Runs that ended, and may have changed the health of tests.
CREATE TABLE status_due (
    run_id     TEXT NOT NULL CONSTRAINT status_due_pkey PRIMARY KEY CONSTRAINT status_due_run_fkey REFERENCES run (id),
    project_id TEXT NOT NULL,
    at         BIGINT NOT NULL
);

-- What the numbers in history_part stand for.
CREATE TABLE history_name (
    project_id TEXT NOT NULL CONSTRAINT history_name_project_fkey REFERENCES project (id),
    kind       TEXT NOT NULL CONSTRAINT history_name_kind_check CHECK (kind IN ('spec', 'test', 'error')),
    number     BIGINT NOT NULL,
    -- The path of a spec, the signature of a test, the fingerprint of an error.
    key        TEXT NOT NULL,
    -- Of a test the number of its spec.
    spec       BIGINT NOT NULL,
    -- The titles of a test as JSON, the headline of an error.
    text       TEXT NOT NULL,
    -- When it was found that no results have it; NULL if some have, or nobody knows yet.
    unused_since BIGINT,
    CONSTRAINT history_name_pkey PRIMARY KEY (project_id, kind, number),
    CONSTRAINT history_name_key UNIQUE (project_id, kind, key)
);
CREATE INDEX history_name_signature ON history_name (key) WHERE kind = 'test';

-- The results of 256 specs of a group, packed (internal/history/pack.go).
CREATE TABLE history_part (
    run_id     TEXT NOT NULL CONSTRAINT history_part_run_fkey REFERENCES run (id),
    group_name TEXT NOT NULL,
    part       BIGINT NOT NULL,
    -- Of the results. It comes before them, so that SQLite need not read these to find it.
    digest     BIGINT NOT NULL,
    -- Where in the results each spec is, so that those of one are read without the others.
    contents   BYTEA NOT NULL,
    results    BYTEA NOT NULL,
    CONSTRAINT history_part_pkey PRIMARY KEY (run_id, group_name, part)
);

CREATE TABLE console_output (
    instance_id TEXT NOT NULL CONSTRAINT console_output_pkey PRIMARY KEY CONSTRAINT console_output_instance_fkey REFERENCES instance (id),
    text        TEXT NOT NULL
);

-- Every file that is or may be in the store of artifacts: nothing ever lists the
-- store to find out. A file without a time at which it is deleted has an artifact.
CREATE TABLE stored_file (
    key        TEXT NOT NULL CONSTRAINT stored_file_pkey PRIMARY KEY,
    -- Without a reference: files outlive their project until they are deleted.
    project_id TEXT NOT NULL,
    -- Bytes; the most that there can be while it is uploaded.
    size       BIGINT NOT NULL,
    delete_at  BIGINT
);
CREATE INDEX stored_file_delete ON stored_file (delete_at) WHERE delete_at IS NOT NULL;
CREATE INDEX stored_file_project ON stored_file (project_id, size);

-- What a reporter uploaded for a spec, or why it could not.
CREATE TABLE artifact (
    -- Made from the instance, the kind and the reporter's own id of the thing: the
    -- same whenever the results are sent again.
    id            TEXT NOT NULL CONSTRAINT artifact_pkey PRIMARY KEY,
    -- Without references, as table removal says.
    project_id    TEXT NOT NULL,
    run_id        TEXT NOT NULL,
    instance_id   TEXT NOT NULL,
    kind          TEXT NOT NULL CONSTRAINT artifact_kind_check CHECK (kind IN ('screenshot', 'video', 'coverage')),
    content_type  TEXT NOT NULL,
    -- '' or 'gzip': how the file is packed.
    encoding      TEXT NOT NULL CONSTRAINT artifact_encoding_check CHECK (encoding IN ('', 'gzip')),
    size          BIGINT NOT NULL,
    -- Of the file as it is stored, in hexadecimal; '' if the server has not seen it.
    sha256        TEXT NOT NULL,
    -- NULL: there is no file, and problem says why.
    file_key      TEXT CONSTRAINT artifact_file_key UNIQUE CONSTRAINT artifact_file_fkey REFERENCES stored_file (key),
    -- The reporter uploads the file to the object storage itself, until then.
    awaited_until BIGINT,
    problem       TEXT NOT NULL,
    -- When it was uploaded, refused or, if it is awaited, announced.
    stored_at     BIGINT NOT NULL,
    CONSTRAINT artifact_problem_check CHECK ((file_key IS NULL) = (problem <> '')),
    CONSTRAINT artifact_awaited_check CHECK (awaited_until IS NULL OR file_key IS NOT NULL)
);
CREATE INDEX artifact_run ON artifact (run_id, instance_id);
CREATE INDEX artifact_project ON artifact (project_id, stored_at);
CREATE INDEX artifact_awaited ON artifact (awaited_until) WHERE awaited_until IS NOT NULL;

CREATE TABLE endpoint (
    id              TEXT NOT NULL CONSTRAINT endpoint_pkey PRIMARY KEY,
    project_id      TEXT NOT NULL CONSTRAINT endpoint_project_fkey REFERENCES project (id),
    -- How it is told of events; it never changes.
    kind            TEXT NOT NULL CONSTRAINT endpoint_kind_check CHECK (kind IN ('webhook', 'slack', 'teams', 'googlechat', 'discord', 'github', 'gitlab', 'bitbucket')),
    payload         TEXT NOT NULL CONSTRAINT endpoint_payload_check CHECK (payload IN ('default', 'extended')),
    url             TEXT NOT NULL,
    headers         TEXT NOT NULL,
    events          TEXT NOT NULL,
    label           TEXT NOT NULL,
    scope           TEXT NOT NULL CONSTRAINT endpoint_scope_check CHECK (scope IN ('group', 'run')),
    branches        TEXT NOT NULL DEFAULT '[]',
    tags            TEXT NOT NULL DEFAULT '[]',
    result          TEXT NOT NULL DEFAULT 'any' CONSTRAINT endpoint_result_check CHECK (result IN ('any', 'passed', 'failed', 'flaky', 'recovered')),
    enabled         BIGINT NOT NULL,
    disabled_reason TEXT NOT NULL,
    secret          TEXT NOT NULL,
    previous_secret TEXT NOT NULL DEFAULT '',
    previous_until  BIGINT,
    private_key     TEXT NOT NULL DEFAULT '',
    max_in_flight   BIGINT NOT NULL DEFAULT 16,
    rate_per_minute BIGINT NOT NULL DEFAULT 0,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX endpoint_project ON endpoint (project_id, created_at);

CREATE TABLE lane (
    endpoint_id     TEXT NOT NULL CONSTRAINT lane_pkey PRIMARY KEY CONSTRAINT lane_endpoint_fkey REFERENCES endpoint (id),
    -- The process that sends, and until when it may; '' and 0 if there is none.
    node            TEXT NOT NULL,
    lease_until     BIGINT NOT NULL,
    -- Until then the receiver asked us to wait.
    hold_until      BIGINT NOT NULL,
    last_success_at BIGINT,
    last_failure_at BIGINT,
    -- The first failure after the last success.
    failing_since   BIGINT,
    -- Failures beyond successes, 0 at least, as the engine counts them.
    failures        BIGINT NOT NULL,
    warned          BIGINT NOT NULL,
    CONSTRAINT lane_lease_check CHECK ((node = '') = (lease_until = 0))
);

CREATE TABLE endpoint_history (
    id          TEXT NOT NULL CONSTRAINT endpoint_history_pkey PRIMARY KEY,
    endpoint_id TEXT NOT NULL CONSTRAINT endpoint_history_endpoint_fkey REFERENCES endpoint (id),
    at          BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    text        TEXT NOT NULL
);
CREATE INDEX endpoint_history_endpoint ON endpoint_history (endpoint_id, id);

CREATE TABLE event (
    id         TEXT NOT NULL CONSTRAINT event_pkey PRIMARY KEY,
    project_id TEXT NOT NULL,
    -- NULL is a test send. An event outlives its run while it has deliveries.
    run_id     TEXT,
    group_name TEXT NOT NULL,
    scope      TEXT NOT NULL CONSTRAINT event_scope_check CHECK (scope IN ('group', 'run')),
    -- Not IN: with more than two values SQLite builds a table for each row.
    kind       TEXT NOT NULL CONSTRAINT event_kind_check CHECK (kind = 'RUN_START' OR kind = 'RUN_FINISH' OR kind = 'RUN_TIMEOUT' OR kind = 'RUN_CANCELED' OR kind = 'TEST_STATUS'),
    phase      TEXT NOT NULL CONSTRAINT event_phase_check CHECK (phase = 'start' OR phase = 'end' OR phase = 'tests'),
    sequence   BIGINT NOT NULL,
    payload    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- NULL if no endpoint that got the event needs them.
    facts      TEXT,
    CONSTRAINT event_start_check CHECK ((kind = 'RUN_START') = (phase = 'start')),
    CONSTRAINT event_tests_check CHECK ((kind = 'TEST_STATUS') = (phase = 'tests')),
    -- A group or run starts once and ends once, and tells of tests once.
    CONSTRAINT event_once_key UNIQUE (run_id, scope, group_name, phase)
);

-- Events whose facts are not complete yet.
CREATE TABLE facts_due (
    event_id TEXT NOT NULL CONSTRAINT facts_due_pkey PRIMARY KEY,
    -- The first specs that had failed when it happened: ids of instances, a space between two.
    failed   TEXT NOT NULL,
    at       BIGINT NOT NULL
);

CREATE TABLE delivery (
    id          TEXT NOT NULL CONSTRAINT delivery_pkey PRIMARY KEY,
    endpoint_id TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    -- '' is a test send.
    run_id      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    sequence    BIGINT NOT NULL,
    -- It is told with the facts of the event.
    with_facts  BIGINT NOT NULL,
    -- Not IN, as above.
    state       TEXT NOT NULL CONSTRAINT delivery_state_check CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed'),
    attempts    BIGINT NOT NULL,
    -- Attempts from before it was redelivered by hand: the schedule does not
    -- count them.
    earlier     BIGINT NOT NULL,
    -- Its first attempt or a quick retry is ahead: later events of the run wait.
    blocks      BIGINT NOT NULL,
    -- It waits for an earlier one that blocks, or with_facts for a row of facts_due to go.
    parked      BIGINT NOT NULL,
    -- When the next attempt is due.
    due_at      BIGINT,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT,
    CONSTRAINT delivery_due_check CHECK ((state = 'pending' AND parked = 0) = (due_at IS NOT NULL)),
    CONSTRAINT delivery_waiting_check CHECK (state = 'pending' OR (parked = 0 AND blocks = 0)),
    CONSTRAINT delivery_finished_check CHECK ((state = 'pending') = (finished_at IS NULL))
);
CREATE INDEX delivery_due ON delivery (endpoint_id, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX delivery_parked ON delivery (endpoint_id, run_id) WHERE parked = 1;
CREATE INDEX delivery_failed ON delivery (endpoint_id, finished_at) WHERE state = 'failed';
CREATE INDEX delivery_log ON delivery (endpoint_id, created_at, id);
CREATE INDEX delivery_run ON delivery (run_id, endpoint_id, sequence);

-- Without a reference to delivery: PostgreSQL would look up and lock the
-- delivery for each attempt, which the same transaction has just updated.
-- Removing deliveries locks them first.
CREATE TABLE attempt (
    delivery_id      TEXT NOT NULL,
    number           BIGINT NOT NULL,
    started_at       BIGINT NOT NULL,
    duration         BIGINT NOT NULL,
    request_headers  TEXT NOT NULL,
    class            TEXT NOT NULL,
    status           BIGINT NOT NULL,
    response_headers TEXT NOT NULL,
    response_body    TEXT NOT NULL,
    error            TEXT NOT NULL,
    CONSTRAINT attempt_pkey PRIMARY KEY (delivery_id, number)
);

CREATE TABLE account (
    id         TEXT NOT NULL CONSTRAINT account_pkey PRIMARY KEY,
    email      TEXT NOT NULL CONSTRAINT account_email_key UNIQUE,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL CONSTRAINT account_role_check CHECK (role IN ('admin', 'member', 'viewer')),
    -- argon2id; '' for people who sign in another way.
    password   TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at    BIGINT
);

CREATE TABLE session (
    hash       TEXT NOT NULL CONSTRAINT session_pkey PRIMARY KEY,
    account_id TEXT NOT NULL CONSTRAINT session_account_fkey REFERENCES account (id),
    created_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);
CREATE INDEX session_account ON session (account_id);
CREATE INDEX session_seen ON session (seen_at);

CREATE TABLE invitation (
    id         TEXT NOT NULL CONSTRAINT invitation_pkey PRIMARY KEY,
    hash       TEXT NOT NULL CONSTRAINT invitation_hash_key UNIQUE,
    email      TEXT NOT NULL,
    role       TEXT NOT NULL CONSTRAINT invitation_role_check CHECK (role IN ('admin', 'member', 'viewer')),
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX invitation_expires ON invitation (expires_at);
