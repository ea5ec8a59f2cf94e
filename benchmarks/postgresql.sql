-- Makes an index on the token whenever FerretDB v1 makes a collection access_tokens, in whatever database. FerretDB looks
-- strings up by containment (@>), which its own indexes do not serve, and by parameters, which only a plan made for their
-- values can match with the index.
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
