-- People who sign in, their sessions, and the links by which they come; when
-- keys were used; whether the runs of a project are open to who has a link.

-- +goose Up
-- Not "user": that is a word of PostgreSQL.
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

-- A link with which one person may set a password, once. Without an email it is
-- the setup link, which makes the first account.
CREATE TABLE invitation (
    id         TEXT PRIMARY KEY,
    hash       TEXT NOT NULL UNIQUE,
    email      TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

ALTER TABLE record_key ADD COLUMN used_at BIGINT;
ALTER TABLE api_key ADD COLUMN used_at BIGINT;
ALTER TABLE project ADD COLUMN public_runs BIGINT NOT NULL DEFAULT 0;
