-- Times without a zone are of UTC, as an import's are, whatever zone the session is in.
set local timezone = 'UTC'
