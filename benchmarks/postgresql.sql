-- Makes an index on the token when FerretDB v1 creates a collection access_tokens in any
-- database. FerretDB compares strings by containment (@>), for which its own indexes cannot be
-- used. It passes them as parameters, so that only a custom plan can use this index.
CREATE OR REPLACE FUNCTION public.index_tokens() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE created record;
BEGIN
  FOR created IN SELECT objid::regclass AS name FROM pg_event_trigger_ddl_commands()
    WHERE object_type = 'table' AND objid::regclass::text LIKE '%access_tokens%' LOOP
    EXECUTE format('CREATE INDEX ON %s USING gin ((_jsonb->''token'') jsonb_path_ops) WITH (fastupdate = off)', created.name);
  END LOOP;
END $$;
DROP EVENT TRIGGER IF EXISTS index_tokens;
CREATE EVENT TRIGGER index_tokens ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.index_tokens();

DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_custom_plan', current_database()); END $$;
