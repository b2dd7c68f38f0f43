"""A time zone that is written as an offset is refused."""

from pathlib import Path

from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # exec_driver_sql without parameters: the file goes to Postgres as it is,
    # with its `%` and `:` and its many statements.
    sql = Path(__file__).with_suffix(".sql").read_text("utf-8")
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql)


def downgrade() -> None:
    raise SystemExit("The books are not thrown away by a downgrade; restore a backup instead.")
