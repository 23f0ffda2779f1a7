-- Which token speaks for a node: the one that it first joined with. NULL is the installation's own node, which runs in the daemon's process.
CREATE TABLE node_bindings (
    node        BLOB    NOT NULL PRIMARY KEY CHECK (length(node) = 16),
    token       BLOB             REFERENCES node_tokens (id),
    bound_at_ms INTEGER NOT NULL
) STRICT;
