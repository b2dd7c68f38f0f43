-- Makes room for the next batch of messages; what it names stays.
truncate pg_temp.import_chunk
