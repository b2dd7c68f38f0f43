select analytics.fold($1);
