-- Of this connection alone. psycopg reads no other, and a database or login may default to one.
set datestyle to 'ISO'
