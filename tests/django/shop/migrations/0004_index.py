"""An index that keeps nobody out while it is made."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0003_tables")]

    operations = [AddIndexConcurrently("order", models.Index(fields=["placed"], name="order_placed"))]
