-- +goose Up
-- The tables of Latchkey on PostgreSQL. Times are in milliseconds since 1970-01-01 UTC.
-- PostgreSQL 13 or later.

CREATE TABLE IF NOT EXISTS "users" (
    "id" /* user ID */ UUID /* end */ NOT NULL PRIMARY KEY,
    "email" TEXT COLLATE "C" NOT NULL UNIQUE,
    "hashed_password" TEXT NOT NULL DEFAULT '',
    "is_active" BOOLEAN NOT NULL DEFAULT TRUE,
    "is_verified" BOOLEAN NOT NULL DEFAULT FALSE,
    "is_superuser" BOOLEAN NOT NULL DEFAULT FALSE,
    "created_at" BIGINT NOT NULL,
    "token_version" BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS "access_tokens" (
    "id" UUID NOT NULL PRIMARY KEY,
    "token" TEXT COLLATE "C" NOT NULL UNIQUE,
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
    "client_ip" TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS "access_tokens_created_at" ON "access_tokens" ("created_at");
CREATE INDEX IF NOT EXISTS "access_tokens_expires_at" ON "access_tokens" ("expires_at");
CREATE INDEX IF NOT EXISTS "access_tokens_user" ON "access_tokens" ("user_id", "created_at", "id");

CREATE TABLE IF NOT EXISTS "api_tokens" (
    "id" UUID NOT NULL PRIMARY KEY,
    "token" TEXT COLLATE "C" NOT NULL UNIQUE,
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
    "client_ip" TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS "api_tokens_created_at" ON "api_tokens" ("created_at");
CREATE INDEX IF NOT EXISTS "api_tokens_expires_at" ON "api_tokens" ("expires_at");
CREATE INDEX IF NOT EXISTS "api_tokens_user" ON "api_tokens" ("user_id", "created_at", "id");

CREATE TABLE IF NOT EXISTS "revocations" (
    "id" UUID NOT NULL PRIMARY KEY,
    "at" BIGINT NOT NULL,
    "token" TEXT COLLATE "C",
    "session_id" UUID,
    "user_id" /* user ID */ UUID /* end */
);
CREATE INDEX IF NOT EXISTS "revocations_at" ON "revocations" ("at");

CREATE TABLE IF NOT EXISTS "leases" (
    "name" TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    "holder" TEXT COLLATE "C" NOT NULL,
    "until_at" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS "login_attempts" (
    "id" TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    "failures" BIGINT NOT NULL,
    "last_at" BIGINT NOT NULL,
    "expires_at" BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS "login_attempts_expires_at" ON "login_attempts" ("expires_at");

CREATE TABLE IF NOT EXISTS "one_time_tokens" (
    "id" TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    "purpose" TEXT COLLATE "C" NOT NULL,
    "user_id" /* user ID */ UUID /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "sent_to" TEXT COLLATE "C" NOT NULL,
    "email" TEXT COLLATE "C" NOT NULL,
    "token_version" BIGINT NOT NULL,
    "created_at" BIGINT NOT NULL,
    "expires_at" BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS "one_time_tokens_expires_at" ON "one_time_tokens" ("expires_at");
CREATE INDEX IF NOT EXISTS "one_time_tokens_user" ON "one_time_tokens" ("user_id", "purpose");

CREATE TABLE IF NOT EXISTS "oauth_accounts" (
    "issuer" TEXT COLLATE "C" NOT NULL,
    "subject" TEXT COLLATE "C" NOT NULL,
    "user_id" /* user ID */ UUID /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "email" TEXT NOT NULL DEFAULT '',
    "created_at" BIGINT NOT NULL,
    PRIMARY KEY ("issuer", "subject")
);
CREATE INDEX IF NOT EXISTS "oauth_accounts_user" ON "oauth_accounts" ("user_id");
