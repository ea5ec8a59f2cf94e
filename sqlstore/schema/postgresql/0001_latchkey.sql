-- Latchkey's tables. Times are in milliseconds since 1970-01-01 UTC.

CREATE TABLE IF NOT EXISTS "users" (
    "id" /* user ID */ UUID /* end */ NOT NULL PRIMARY KEY,
    "email" TEXT COLLATE "C" NOT NULL UNIQUE,
    "hashed_password" TEXT,
    "is_active" BOOLEAN NOT NULL DEFAULT TRUE,
    "is_verified" BOOLEAN NOT NULL DEFAULT FALSE,
    "is_superuser" BOOLEAN NOT NULL DEFAULT FALSE,
    "token_version" BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS "access_tokens" (
    "id" UUID NOT NULL PRIMARY KEY,
    "token" TEXT NOT NULL UNIQUE,
    "user_id" /* user ID */ UUID /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "created_at" BIGINT NOT NULL,
    "last_used_at" BIGINT,
    "authenticated_at" BIGINT,
    "token_version" BIGINT NOT NULL DEFAULT 0,
    "expires_at" BIGINT,
    "legacy" BOOLEAN NOT NULL DEFAULT FALSE,
    "scopes" TEXT,
    "name" TEXT NOT NULL DEFAULT '',
    "user_agent" TEXT NOT NULL DEFAULT '',
    "client_ip" TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS "access_tokens_created_at" ON "access_tokens" ("created_at");
CREATE INDEX IF NOT EXISTS "access_tokens_user" ON "access_tokens" ("user_id", "created_at", "id");
CREATE INDEX IF NOT EXISTS "access_tokens_expires_at" ON "access_tokens" ("expires_at");

CREATE TABLE IF NOT EXISTS "revocations" (
    "id" UUID NOT NULL PRIMARY KEY,
    "at" BIGINT NOT NULL,
    "token" TEXT,
    "session_id" UUID,
    "user_id" /* user ID */ UUID /* end */
);
CREATE INDEX IF NOT EXISTS "revocations_at" ON "revocations" ("at");
