-- Facts about this installation: its id.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- The wall: every key, record, artifact and query belongs to one.
CREATE TABLE tenants (
    id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    name          TEXT    NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- `lookup` is the public part of the token; `hash` is an argon2id PHC string of the secret part.
CREATE TABLE api_keys (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    lookup          TEXT    NOT NULL UNIQUE,
    tenant          BLOB    NOT NULL REFERENCES tenants (id),
    name            TEXT    NOT NULL,
    scope           TEXT    NOT NULL CHECK (scope IN ('read', 'operate', 'admin')),
    hash            TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    created_by      BLOB             CHECK (length(created_by) = 16),
    expires_at_ms   INTEGER,
    revoked_at_ms   INTEGER,
    revoked_by      BLOB             CHECK (length(revoked_by) = 16),
    last_used_at_ms INTEGER
) STRICT;

CREATE INDEX api_keys_by_tenant ON api_keys (tenant, id);

-- Apart from API keys, so that neither can ever be taken for the other. `shared` lets a node serve every tenant; `tenant` administers the token.
CREATE TABLE node_tokens (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    lookup          TEXT    NOT NULL UNIQUE,
    tenant          BLOB    NOT NULL REFERENCES tenants (id),
    shared          INTEGER NOT NULL CHECK (shared IN (0, 1)),
    name            TEXT    NOT NULL,
    hash            TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    created_by      BLOB             CHECK (length(created_by) = 16),
    revoked_at_ms   INTEGER,
    revoked_by      BLOB             CHECK (length(revoked_by) = 16),
    last_used_at_ms INTEGER
) STRICT;

CREATE INDEX node_tokens_by_tenant ON node_tokens (tenant, id);
