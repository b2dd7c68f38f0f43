select * from analytics.refresh();
