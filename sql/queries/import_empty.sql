-- Makes room for the next chunk.
truncate pg_temp.import_chunk, pg_temp.import_names
