"""Figures over time: `reports` runs the queries of sql/analytics, `worker` keeps the rollups.

The definitions are in the database: sql/schema/3xx.
"""

from chatter_db.analytics.definitions import definitions
from chatter_db.analytics.reports import Report, Table, reports, run_report, user_id
from chatter_db.analytics.worker import Worker

__all__ = ["Report", "Table", "Worker", "definitions", "reports", "run_report", "user_id"]
