-- +goose Up
-- The tables of Latchkey on SQLite. Times are in milliseconds since 1970-01-01 UTC.
-- SQLite 3.35 or later.

CREATE TABLE IF NOT EXISTS "users" (
    "id" /* user ID */ TEXT /* end */ NOT NULL PRIMARY KEY,
    "email" TEXT NOT NULL UNIQUE,
    "hashed_password" TEXT NOT NULL DEFAULT '',
    "is_active" BOOLEAN NOT NULL DEFAULT TRUE,
    "is_verified" BOOLEAN NOT NULL DEFAULT FALSE,
    "is_superuser" BOOLEAN NOT NULL DEFAULT FALSE,
    "created_at" INTEGER NOT NULL,
    "token_version" INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS "access_tokens" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "token" TEXT NOT NULL UNIQUE,
    "user_id" /* user ID */ TEXT /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "created_at" INTEGER NOT NULL,
    "last_used_at" INTEGER,
    "authenticated_at" INTEGER,
    "token_version" INTEGER NOT NULL DEFAULT 0,
    "expires_at" INTEGER,
    "legacy" BOOLEAN NOT NULL DEFAULT FALSE,
    "scopes" TEXT,
    "name" TEXT NOT NULL DEFAULT '',
    "user_agent" TEXT NOT NULL DEFAULT '',
    "client_ip" TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS "access_tokens_created_at" ON "access_tokens" ("created_at");
CREATE INDEX IF NOT EXISTS "access_tokens_expires_at" ON "access_tokens" ("expires_at");
CREATE INDEX IF NOT EXISTS "access_tokens_user" ON "access_tokens" ("user_id", "created_at", "id");

CREATE TABLE IF NOT EXISTS "api_tokens" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "token" TEXT NOT NULL UNIQUE,
    "user_id" /* user ID */ TEXT /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "created_at" INTEGER NOT NULL,
    "last_used_at" INTEGER,
    "authenticated_at" INTEGER,
    "token_version" INTEGER NOT NULL DEFAULT 0,
    "expires_at" INTEGER,
    "legacy" BOOLEAN NOT NULL DEFAULT FALSE,
    "scopes" TEXT,
    "name" TEXT NOT NULL DEFAULT '',
    "user_agent" TEXT NOT NULL DEFAULT '',
    "client_ip" TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS "api_tokens_created_at" ON "api_tokens" ("created_at");
CREATE INDEX IF NOT EXISTS "api_tokens_expires_at" ON "api_tokens" ("expires_at");
CREATE INDEX IF NOT EXISTS "api_tokens_user" ON "api_tokens" ("user_id", "created_at", "id");

CREATE TABLE IF NOT EXISTS "revocations" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "at" INTEGER NOT NULL,
    "token" TEXT,
    "session_id" TEXT,
    "user_id" /* user ID */ TEXT /* end */
);
CREATE INDEX IF NOT EXISTS "revocations_at" ON "revocations" ("at");

CREATE TABLE IF NOT EXISTS "leases" (
    "name" TEXT NOT NULL PRIMARY KEY,
    "holder" TEXT NOT NULL,
    "until_at" INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS "login_attempts" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "failures" INTEGER NOT NULL,
    "last_at" INTEGER NOT NULL,
    "expires_at" INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS "login_attempts_expires_at" ON "login_attempts" ("expires_at");

CREATE TABLE IF NOT EXISTS "one_time_tokens" (
    "id" TEXT NOT NULL PRIMARY KEY,
    "purpose" TEXT NOT NULL,
    "user_id" /* user ID */ TEXT /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "sent_to" TEXT NOT NULL,
    "email" TEXT NOT NULL,
    "token_version" INTEGER NOT NULL,
    "created_at" INTEGER NOT NULL,
    "expires_at" INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS "one_time_tokens_expires_at" ON "one_time_tokens" ("expires_at");
CREATE INDEX IF NOT EXISTS "one_time_tokens_user" ON "one_time_tokens" ("user_id", "purpose");

CREATE TABLE IF NOT EXISTS "oauth_accounts" (
    "issuer" TEXT NOT NULL,
    "subject" TEXT NOT NULL,
    "user_id" /* user ID */ TEXT /* end */ NOT NULL /* foreign key */ REFERENCES "users" ("id") ON DELETE CASCADE /* end */,
    "email" TEXT NOT NULL DEFAULT '',
    "created_at" INTEGER NOT NULL,
    PRIMARY KEY ("issuer", "subject")
);
CREATE INDEX IF NOT EXISTS "oauth_accounts_user" ON "oauth_accounts" ("user_id");
