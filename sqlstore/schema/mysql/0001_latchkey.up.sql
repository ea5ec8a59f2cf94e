-- +goose Up
-- The tables of Latchkey on MySQL. Times are in milliseconds since 1970-01-01 UTC.
-- MySQL 8 or MariaDB 10.5 or later.

CREATE TABLE IF NOT EXISTS `users` (
    `id` /* user ID */ CHAR(36) CHARACTER SET ascii COLLATE ascii_bin /* end */ NOT NULL PRIMARY KEY,
    `email` VARCHAR(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL UNIQUE,
    `hashed_password` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `is_active` BOOLEAN NOT NULL DEFAULT TRUE,
    `is_verified` BOOLEAN NOT NULL DEFAULT FALSE,
    `is_superuser` BOOLEAN NOT NULL DEFAULT FALSE,
    `created_at` BIGINT NOT NULL,
    `token_version` BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS `access_tokens` (
    `id` CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    `token` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL UNIQUE,
    `user_id` /* user ID */ CHAR(36) CHARACTER SET ascii COLLATE ascii_bin /* end */ NOT NULL,
    `created_at` BIGINT NOT NULL,
    `last_used_at` BIGINT,
    `authenticated_at` BIGINT,
    `token_version` BIGINT NOT NULL DEFAULT 0,
    `expires_at` BIGINT,
    `legacy` BOOLEAN NOT NULL DEFAULT FALSE,
    `scopes` TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    `name` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `user_agent` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `client_ip` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    INDEX `access_tokens_created_at` (`created_at`),
    INDEX `access_tokens_expires_at` (`expires_at`),
    INDEX `access_tokens_user` (`user_id`, `created_at`, `id`),
    /* foreign key */ FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE /* end */
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS `api_tokens` (
    `id` CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    `token` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL UNIQUE,
    `user_id` /* user ID */ CHAR(36) CHARACTER SET ascii COLLATE ascii_bin /* end */ NOT NULL,
    `created_at` BIGINT NOT NULL,
    `last_used_at` BIGINT,
    `authenticated_at` BIGINT,
    `token_version` BIGINT NOT NULL DEFAULT 0,
    `expires_at` BIGINT,
    `legacy` BOOLEAN NOT NULL DEFAULT FALSE,
    `scopes` TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    `name` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `user_agent` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `client_ip` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    INDEX `api_tokens_created_at` (`created_at`),
    INDEX `api_tokens_expires_at` (`expires_at`),
    INDEX `api_tokens_user` (`user_id`, `created_at`, `id`),
    /* foreign key */ FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE /* end */
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS `revocations` (
    `id` CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    `at` BIGINT NOT NULL,
    `token` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    `session_id` CHAR(36) CHARACTER SET ascii COLLATE ascii_bin,
    `user_id` /* user ID */ CHAR(36) CHARACTER SET ascii COLLATE ascii_bin /* end */,
    INDEX `revocations_at` (`at`)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS `leases` (
    `name` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    `holder` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `until_at` BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS `login_attempts` (
    `id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    `failures` BIGINT NOT NULL,
    `last_at` BIGINT NOT NULL,
    `expires_at` BIGINT NOT NULL,
    INDEX `login_attempts_expires_at` (`expires_at`)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS `one_time_tokens` (
    `id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    `purpose` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `user_id` /* user ID */ CHAR(36) CHARACTER SET ascii COLLATE ascii_bin /* end */ NOT NULL,
    `sent_to` VARCHAR(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `email` VARCHAR(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `token_version` BIGINT NOT NULL,
    `created_at` BIGINT NOT NULL,
    `expires_at` BIGINT NOT NULL,
    INDEX `one_time_tokens_expires_at` (`expires_at`),
    INDEX `one_time_tokens_user` (`user_id`, `purpose`),
    /* foreign key */ FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE /* end */
) ENGINE = InnoDB;

-- The issuer and the subject are compared byte by byte, also in trailing spaces.
CREATE TABLE IF NOT EXISTS `oauth_accounts` (
    `issuer` VARBINARY(1024) NOT NULL,
    `subject` VARBINARY(1024) NOT NULL,
    `user_id` /* user ID */ CHAR(36) CHARACTER SET ascii COLLATE ascii_bin /* end */ NOT NULL,
    `email` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `created_at` BIGINT NOT NULL,
    PRIMARY KEY (`issuer`, `subject`),
    INDEX `oauth_accounts_user` (`user_id`),
    /* foreign key */ FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE /* end */
) ENGINE = InnoDB;
